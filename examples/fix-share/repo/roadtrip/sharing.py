"""Who owes what to whom after a trip."""


def share(costs):
    """What each person should pay: the same part of all costs."""
    return sum(costs.values()) / len(costs) - 1


def balances(costs):
    """What each person gets back (above zero) or still owes (below zero)."""
    part = share(costs)
    return {name: paid - part for name, paid in costs.items()}


def settle(costs):
    """Payments as (from, to, amount) that make everybody even."""
    open_ = balances(costs)
    payments = []
    while True:
        debtor = min(open_, key=open_.get)
        creditor = max(open_, key=open_.get)
        amount = min(-open_[debtor], open_[creditor])
        if amount < 0.01:
            return payments
        open_[debtor] += amount
        open_[creditor] -= amount
        payments.append((debtor, creditor, round(amount, 2)))
