"""Forbids the network to a Python process that has this folder on its PYTHONPATH: only this machine may be reached.

An audit hook sees every way through Python's sockets and cannot be taken off again. What was tried is refused, and noted in the file OFFLINE_LOG.
"""

import ipaddress
import os
import sys

LOG = os.environ.get('OFFLINE_LOG')
CONNECTING = {
    'socket.connect': 1,
    'socket.sendto': 1,
    'socket.sendmsg': 1,
    'socket.getaddrinfo': 0,
    'socket.gethostbyname': 0,
    'socket.gethostbyaddr': 0,
}


def is_here(address):
    """Is it this machine? `address` as Python's sockets take it: (host, port, …), a host, or the path of a Unix socket."""
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(host, bytes):
        host = host.decode(errors='replace')
    if host in (None, '', 'localhost') or str(host).startswith(('/', '\x00')):
        return True
    try:
        ip = ipaddress.ip_address(str(host).partition('%')[0])
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified


def watch(event, args):
    if event not in CONNECTING or is_here(args[CONNECTING[event]]):
        return
    if LOG:
        with open(LOG, 'a') as f:
            f.write(f'{event} {args[CONNECTING[event]]!r} {sys.argv[:1]}\n')
    raise PermissionError(f'offline: {event} to {args[CONNECTING[event]]!r} is forbidden here')


sys.addaudithook(watch)
