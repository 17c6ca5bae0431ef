"""What people look at: tables, figures and one self-contained page, made from a results folder alone.

The folder's results.csv, study.yaml and provenance.json are all it takes; no network is run.
"""

from neuralfuse.report.build import Report, build_report, headline_lines

__all__ = ["Report", "build_report", "headline_lines"]
