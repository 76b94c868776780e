from roadtrip.sharing import balances, settle, share


def test_share_is_the_same_for_all():
    assert share({"ann": 60, "bo": 30, "cy": 0}) == 30


def test_who_paid_more_gets_money_back():
    assert balances({"ann": 60, "bo": 30, "cy": 0}) == {"ann": 30, "bo": 0, "cy": -30}


def test_settle_makes_everybody_even():
    assert settle({"ann": 60, "bo": 30, "cy": 0}) == [("cy", "ann", 30)]


def test_nothing_to_settle():
    assert settle({"ann": 5, "bo": 5}) == []
