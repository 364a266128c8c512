"""Checks of a node's daemon and of its way to the API server. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from homeport.doctor.facts import Answering, ApiFacts, DaemonFacts, Site
from homeport.doctor.findings import Diagnosis, Severity, Sure

_SKEW_SECONDS = 5.0
_GREAT_SKEW_SECONDS = 300.0
_SLOW_SECONDS = 1.0
_LOOK = ("systemctl status homeportd", "journalctl -u homeportd --since -10min")


def configuration(site: Site) -> Iterator[Diagnosis]:
    """Every key of the file is one that somebody reads."""
    for warning in site.warnings:
        yield Diagnosis(
            id="config-key-unknown",
            severity=Severity.WARNING,
            sure=Sure.CERTAIN,
            place=site.config_file,
            found=warning,
            expected="keys of docs/configuration.md",
            why="what it was to change is as it was",
            run=(f"grep -n . {site.config_file}",),
        )


def daemon(site: Site, found: DaemonFacts) -> Iterator[Diagnosis]:
    """It answers, is ready, and is the installed version."""
    if found.answering in (Answering.MISSING, Answering.REFUSED):
        yield Diagnosis(
            id="daemon-missing",
            severity=Severity.ERROR,
            sure=Sure.CERTAIN,
            place=site.socket,
            found=found.answering.value,
            expected="homeportd",
            why="no pod of this node starts; those that end are taken down when it is back",
            run=_LOOK,
        )
    elif found.answering is Answering.SILENT:
        yield Diagnosis(
            id="daemon-silent",
            severity=Severity.ERROR,
            sure=Sure.LIKELY,
            place=site.socket,
            found=found.problem,
            expected="an answer to GET /readyz",
            why="it hangs, or something else listens there: calls of the runtime wait until they fail",
            run=_LOOK,
        )
    elif found.answering is Answering.UNREADY:
        yield Diagnosis(
            id="daemon-unready",
            severity=Severity.WARNING,
            sure=Sure.CERTAIN,
            place=site.socket,
            found=found.problem,
            expected="ready",
            why="it takes no calls: ADD fails until it does",
            run=_LOOK,
        )
    if found.version and found.version != site.version:
        yield Diagnosis(
            id="daemon-version",
            severity=Severity.WARNING,
            sure=Sure.CERTAIN,
            place=site.socket,
            found=f"version {found.version} runs",
            expected=f"version {site.version}, as installed",
            why="what was installed is not at work yet",
            run=("systemctl reload homeportd",),
        )
    if found.is_here is False:
        yield Diagnosis(
            id="daemon-elsewhere",
            severity=Severity.WARNING,
            sure=Sure.CERTAIN,
            place=site.socket,
            found="the daemon lives in another network namespace than this command",
            expected="the same",
            why="it makes interfaces where its own links are; what is said of links here is not about those",
            run=("nsenter --target $(pidof -s homeportd) --net homeport doctor",),
        )


def api(found: ApiFacts) -> Iterator[Diagnosis]:
    """Its clock agrees with ours, and it answers soon."""
    skew = found.skew_seconds
    if skew is not None and abs(skew) > _SKEW_SECONDS:
        yield Diagnosis(
            id="clock-skew",
            severity=Severity.ERROR if abs(skew) > _GREAT_SKEW_SECONDS else Severity.WARNING,
            sure=Sure.LIKELY,
            place=f"clock of this node and {found.place}",
            found=f"the API server is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}",
            expected=f"within {_SKEW_SECONDS:g} s",
            why="times in the ledger are wrong, retention ends early or late, and certificates may not be valid yet",
            run=("timedatectl status",),
        )
    if found.seconds > _SLOW_SECONDS:
        yield Diagnosis(
            id="api-slow",
            severity=Severity.WARNING,
            sure=Sure.POSSIBLE,
            place=found.place,
            found=f"{found.seconds:.1f} s for the shortest question",
            expected=f"less than {_SLOW_SECONDS:g} s",
            why="an ADD asks three or four, and gives up after 2.5 s for each",
            run=("kubectl get --raw /livez?verbose",),
        )


def unreachable(site: Site, why: str) -> Diagnosis:
    """The API server was asked, and nothing came of it."""
    by = f"--kubeconfig {site.kubeconfig} " if site.kubeconfig else ""
    return Diagnosis(
        id="api-unreachable",
        severity=Severity.ERROR,
        sure=Sure.CERTAIN,
        place=f"API server of {site.kubeconfig or 'the service account'}",
        found=why,
        expected="an answer",
        why="pods that run keep their addresses; new ones get none, and what is given back is told later",
        run=(f"kubectl {by}get --raw /livez", "journalctl -u homeportd --since -10min"),
    )
