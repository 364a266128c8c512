"""What is found in a network alone is found once, however often its manifests are looked at with others."""

from __future__ import annotations

from collections.abc import Iterator

from homeport.lint import manifests
from homeport.lint.checking import found_in
from homeport.lint.manifests import Network, of_network

TEXT = """{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": "%s"},
"spec": {"config": "{\\"cniVersion\\": \\"0.4.0\\", \\"type\\": \\"macvlan\\", \\"mastr\\": \\"eth1\\"}"}}"""


def test_each_network_keeps_its_own() -> None:
    asked: list[str] = []

    @of_network
    def names(network: Network) -> Iterator[str]:
        asked.append(network.name)
        yield network.name

    @of_network
    def shouted(network: Network) -> Iterator[str]:
        yield network.name.upper()

    one, other = manifests.read({"a.json": TEXT % "one", "b.json": TEXT % "other"}).networks

    assert [names(one), names(other), names(one), shouted(one)] == [("one",), ("other",), ("one",), ("ONE",)]
    assert asked == ["one", "other"]


def test_looking_again_in_other_company_finds_the_same() -> None:
    one, other = (manifests.read({f"{name}.json": TEXT % name}) for name in ("one", "other"))
    alone = found_in(one)

    together = found_in(manifests.join((one, other)))

    assert found_in(one) == alone
    assert [said.file for rule, said in together if rule.id == "misspelt-key"] == ["one.json", "other.json"]
