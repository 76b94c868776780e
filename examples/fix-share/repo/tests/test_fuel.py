from roadtrip.fuel import litres_needed, reach, stops


def test_litres_for_a_distance():
    assert litres_needed(250, 6) == 15


def test_reach_of_a_tank():
    assert reach(48, 6) == 800


def test_stops_as_late_as_possible():
    assert stops([150, 300, 450, 700], 400, 900) == [300, 700]


def test_no_stop_on_a_short_trip():
    assert stops([100, 200], 400, 350) == []
