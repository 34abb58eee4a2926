"""The templates of the pages in `draw/templates/`, filled in by Jinja2, which escapes whatever it is given."""

from typing import Any

import jinja2
import markupsafe

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("mixaug_jax.draw"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(name: str, /, **values: Any) -> markupsafe.Markup:
    """The template `draw/templates/<name>` with `values` in it; text is escaped, Markup is HTML already.

    Raises:
      jinja2.UndefinedError: the template uses a value that is not given.
    """
    return markupsafe.Markup(_ENVIRONMENT.get_template(name).render(values))


def piece(name: str, *values: Any) -> markupsafe.Markup:
    """The macro `name` of `draw/templates/pieces.html`, called with `values`."""
    return getattr(_ENVIRONMENT.get_template("pieces.html").module, name)(*values)
