"""The tests that `make test` leaves to `make test-rest`: everything else runs in both `make test` and `make test-all`.

An entry is a file, a test, or one case of a test. `tests/conftest.py` marks what the entries name with `extended`, and
`tests/test_suite.py` fails where an entry names nothing.
"""

EXTENDED = frozenset(
    {
        "tests/distributed/test_sizes.py",
    }
)
