"""Small manifests for the tests of lint's rules, and what lint says about them.

`«` marks in a manifest where a finding must stand; it is taken out before the manifest is checked.
"""

from __future__ import annotations

from homeport.lint.checking import check, lines_of

MARK = "«"
IPAM = '"ipam":{"type":"whereabouts","range":"10.1.0.0/24"}'
IPVLAN = f'{{"type":"ipvlan",{IPAM}}}'
HEAD = (
    "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: net, namespace: ns}\nspec:\n"
)


def nad(config: str, *, name: str = "net") -> str:
    """A definition that ends with a document marker, so that others may follow."""
    return f"---\n{HEAD.replace('name: net,', f'name: {name},')}  config: |\n    {config}\n"


def listed(*plugins: str, version: str = "0.4.0", name: str = "net") -> str:
    return nad(f'{{"cniVersion":"{version}","plugins":[{",".join(plugins)}]}}', name=name)


def plugin(kind: str, ipam: str = "", keys: str = "") -> str:
    """A plugin object; `ipam` is the section with its braces, `keys` follow the type."""
    parts = [f'"type":"{kind}"', keys, f'"ipam":{ipam}' if ipam else ""]
    return "{" + ",".join(part for part in parts if part) + "}"


def whereabouts(keys: str) -> str:
    return f'{{"type":"whereabouts",{keys}}}'


def host_local(keys: str) -> str:
    return f'{{"type":"host-local",{keys}}}'


def static(*addresses: str) -> str:
    given = ",".join(f'{{"address":"{address}"}}' for address in addresses)
    return f'{{"type":"static","addresses":[{given}]}}'


def workload(
    networks: str = "net",
    *,
    replicas: int = 1,
    more: str = "",
    kind: str = "StatefulSet",
    namespace: str = "ns",
    name: str = "web",
    spec: str = "",
    pod: str = "",
) -> str:
    """`more` are further annotations, `spec` lines of its spec, `pod` what stands in the pod's spec, as a flow map."""
    return (
        f"---\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec:\n  replicas: {replicas}\n{spec}  template:\n{f'    spec: {pod}' + chr(10) if pod else ''}"
        f"    metadata:\n      annotations:\n        k8s.v1.cni.cncf.io/networks: {networks}\n{more}"
    )


def annotation(key: str, value: str) -> str:
    return f"        homeport.dev/{key}: '{value}'\n"


def places(text: str) -> list[tuple[str, int, int]]:
    return [(f.rule, f.line, f.column) for f in check({"a.yaml": text}).findings]


def unmarked(text: str) -> tuple[str, tuple[int, int]]:
    """The text without its mark, and where the mark stood."""
    assert text.count(MARK) == 1
    return text.replace(MARK, ""), lines_of(text).place(text.index(MARK))


def require_firing(rule: str, marked: str) -> None:
    """The rule, at the mark and nowhere else."""
    text, place = unmarked(marked)
    assert [p for p in places(text) if p[0] == rule] == [(rule, *place)], places(text)


def require_silent(text: str, *but: str) -> None:
    """Nothing is found, `but` for those rules."""
    assert [p for p in places(text) if p[0] not in but] == []
