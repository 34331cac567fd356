"""A progress bar over any loop, where a person watches it and tqdm is installed."""

import os
import sys


def progress(items, description, unit):
    """Return an iterable over items that shows a progress bar where a person watches.

    That is a terminal, JupyterLab or Colab.  Elsewhere, or without tqdm, nothing is shown.

    Args:
        items: any iterable.
        description: what stands before the bar.
        unit: what one item is called.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return items
    watched = (
        sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ or "google.colab" in sys.modules
    )
    return tqdm(items, description, unit=unit, leave=False, disable=not watched)
