"""Telling the neighbours that an address is here.

RFC 5227 §2.3 "Announcing an Address" for IPv4; RFC 4861 §7.2.6 "Sending Unsolicited Neighbor Advertisements" for
IPv6. Sent as whole Ethernet frames from the link, so that they leave by it whatever the routes say.
"""

from __future__ import annotations

import socket

from homeport.host import errors, frames
from homeport.host.errors import place
from homeport.host.linking import decode_link, has_neighbours, required
from homeport.host.operating import Operating
from homeport.model.addresses import IPAddress


class Announcing(Operating):
    """The announcing verb of `ports.Host`."""

    def announce(self, name: str, address: IPAddress, netns: str | None = None) -> None:
        """A link that has no neighbours to tell is left in peace."""
        with self.netlink(netns) as sock:
            body = required(sock, name)
        mac = decode_link(body).mac
        if mac is None or not has_neighbours(body):
            return
        action = f'announce {address} from "{name}"{place(netns)}'
        opened = self.open_socket(netns, socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            opened.bind((name, 0))
            for frame in frames.announcements(address, mac):
                opened.send(frame)
        except OSError as error:
            raise errors.refused(action, error.errno or 0) from error
        finally:
            self.close_packet_socket(opened)
