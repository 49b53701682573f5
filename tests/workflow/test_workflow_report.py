"""Snakemake's own report, made on request from what is there."""

from workflow_project import Project


def test_it_has_the_page_and_the_captions(finished: Project):
    made = finished.snakemake("--report", "report.html")
    assert made.returncode == 0, made.stdout[-3000:]
    report = (finished.root / "report.html").read_text(encoding="utf-8")
    assert "results/small/index.html" in report
    assert "results/small/figures/precision_memory.png" in report
    assert "results/small/tables/main.md" in report
    assert "Every method of the grid, trained alike" in report
