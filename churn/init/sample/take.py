"""Takes the sample of a source of any kind."""

from churn.init.belief import Notes
from churn.init.sample.excel import read_excel
from churn.init.sample.files import find_files, kind_of
from churn.init.sample.parquet import read_parquet
from churn.init.sample.sample import Sample
from churn.init.sample.text import read_text
from core.errors import DataError
from data.source.readers import data_errors


def take_sample(uri: str, notes: Notes) -> Sample:
    """Raises DataError if there is no file, or none that can be read as a table with rows."""
    with data_errors(uri):
        files = find_files(uri)
        with files.filesystem.open(files.paths[0], "rb") as file:
            start = file.read(512)
        if not start.strip():
            raise DataError(f"{uri}: the file is empty; give a table with rows")
        kind = kind_of(files, start)
        if kind == "parquet":
            sample = read_parquet(files, notes)
        elif kind == "excel":
            sample = read_excel(files, notes)
        else:
            sample = read_text(files, start, notes)
        sample.uri = files.uri_for(sample.kind)
        sample.modified = files.modified()
    stripped = [name.strip() for name in sample.table.column_names]
    if len(set(stripped)) == len(stripped):  # ingest strips them as well
        sample.table = sample.table.rename_columns(stripped)
        sample.descriptions = {name.strip(): text for name, text in sample.descriptions.items()}
    if sample.table.num_rows == 0:
        raise DataError(f"{uri}: the table has no rows; give one with rows")
    return sample
