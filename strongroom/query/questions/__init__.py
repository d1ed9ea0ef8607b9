"""Questions made ready: search, timelines, everything about one entity, templates with blanks. Pure."""
