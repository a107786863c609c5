"""A shop's database as the source: the CDNOW log as the table `purchases`, in the order of its file."""

from deploy.loopback.place import Place
from deploy.loopback.postgresql import uri

TABLE = """
CREATE TABLE purchases (
    id integer PRIMARY KEY,
    customer_id integer NOT NULL,
    purchased_on date NOT NULL,
    number_of_cds integer NOT NULL,
    dollar_value numeric(10, 2) NOT NULL
)
"""


def fill(place: Place) -> int:
    """Create and fill the table unless it exists; the number of its rows. One transaction."""
    import psycopg

    from data.config import CdnowSource, DataConfig
    from data.source.sources import open_source

    with psycopg.connect(uri(place, "shop", "")) as connection, connection.cursor() as cursor:
        exists = cursor.execute("SELECT to_regclass('purchases')").fetchone()
        if exists is not None and exists[0] is None:
            cursor.execute(TABLE)
            config = DataConfig(shape="transactions", source=CdnowSource(kind="cdnow"), expectations=())
            number = 0
            with cursor.copy("COPY purchases FROM STDIN") as copy:
                for chunk in open_source(config).chunks():
                    names = ("customer_id", "date", "number_of_cds", "dollar_value")
                    for row in zip(*(chunk[name].to_pylist() for name in names), strict=True):
                        number += 1
                        copy.write_row((number, *row))
        counted = cursor.execute("SELECT count(*) FROM purchases").fetchone()
    return 0 if counted is None else int(counted[0])
