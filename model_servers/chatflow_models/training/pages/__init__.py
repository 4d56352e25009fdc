"""The report of a rehearsal for people: Markdown, and one HTML file with its plots inside."""

from .figures import figures
from .html_page import html_page
from .markdown import markdown
from .wording import held_out_rows, verdict

__all__ = ["figures", "held_out_rows", "html_page", "markdown", "verdict"]
