"""Results as data frames; pandas is an extra, so it is imported where one is asked for."""

from collections.abc import Mapping
from typing import Any


def frame(columns: Mapping[str, Any]) -> Any:
    """A `pandas.DataFrame` of columns by name, each of one value a row.

    Raises:
      ImportError: pandas is not there; the sentence says how to get it.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "to_frame needs pandas: pip install 'mixaug_jax[frames]', or pip install pandas"
        ) from error
    return pandas.DataFrame(dict(columns))


def names_of(dataset: Any, indices: Any) -> list[str]:
    """The names of the files of images in a data set, "" for one without; of data sets that know none [""] * n.

    Args:
      dataset: as `data.Source`, or anything else.
      indices: [n], of the images in it.
    """
    name = getattr(dataset, "file_name", lambda index: "")
    return [str(name(int(index))) for index in indices]
