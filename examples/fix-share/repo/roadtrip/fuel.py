"""How much fuel a trip needs, and where to fill the tank."""


def litres_needed(distance, per_hundred):
    """Litres for a distance in kilometres, from the use for each 100 km."""
    return distance * per_hundred / 100


def reach(tank, per_hundred):
    """How far a tank of so many litres goes, in kilometres."""
    return tank / per_hundred * 100


def stops(stations, full_reach, length):
    """The stations to stop at, given as kilometres from the start.

    Drives as far as the tank allows before each stop.
    """
    chosen = []
    start = 0
    last = 0
    for station in sorted(stations) + [length]:
        if station - start > full_reach:
            chosen.append(last)
            start = last
        last = station
    return chosen
