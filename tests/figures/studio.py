SETTINGS = [
    r"within 200 ms|within 1 s\b|at most 5% more|\b16 bits per channel|\b8 bits, the upper ones"
]  # bounds of tests
