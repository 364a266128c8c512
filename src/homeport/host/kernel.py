"""`ports.Host` on the running kernel, put together from one module a subject."""

from __future__ import annotations

from contextlib import AbstractContextManager

from homeport.host import entering, errors, namespaces
from homeport.host.addressing import Addressing
from homeport.host.announcing import Announcing
from homeport.host.bridging import Bridging
from homeport.host.filtering import Filtering
from homeport.host.routing import Routing
from homeport.host.sysctls import Sysctls


class Kernel(Bridging, Addressing, Routing, Sysctls, Filtering, Announcing):
    """The kernel of this machine; None is `netns`, or this process's namespace where that is None too.

    Safe for any number of threads. `close` ends the helper process; a program that ends may leave that to the
    helper itself.
    """

    def namespace_exists(self, path: str) -> bool:
        return namespaces.exists(path)

    def is_own_namespace(self, path: str) -> bool:
        return namespaces.same(path, self._own or entering.OWN)

    def create_namespace(self, path: str) -> None:
        try:
            self._entrance.create(path)
        except OSError as error:
            raise errors.refused(f"create network namespace {path}", error.errno or 0) from error
        self._operations.record(lambda: namespaces.delete(path))

    def delete_namespace(self, path: str) -> None:
        """Whoever still has a socket in it, or runs in it, keeps it alive. A deletion has no inverse."""
        self._operations.forget_socket(path)
        namespaces.delete(path)

    def lock_namespace(self, path: str) -> AbstractContextManager[None]:
        return namespaces.locked(path)
