"""What checks the archive by itself: schedules, runs, reports, the source's evidence, the locks."""
