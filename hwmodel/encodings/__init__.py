"""One encoding a file; :mod:`hwmodel.encoding` holds their contract."""
