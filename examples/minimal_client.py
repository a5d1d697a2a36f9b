"""A whole client on sockets and msgpack alone, from docs/wire.md: python examples/minimal_client.py [ADDRESS]

It shakes hands, subscribes, publishes this file as an open descriptor, reads it through the descriptor that comes
back, gives credit, requests `$SYS.status`, flushes and says goodbye. ADDRESS, or else $SOCKBUS_ADDRESS, is
unix:DIRECTORY, seqpacket:PATH, stream:PATH or tcp:HOST:PORT; TCP carries no descriptors, so there it does without.
"""

import os
import socket
import struct
import sys
from typing import Any

import msgpack

HELLO, WELCOME, ERROR, GOODBYE, OK, SUBSCRIBE, CREDIT = 1, 2, 3, 4, 5, 16, 18
PUBLISH, PIECE, RECEIPT, DELIVER, REQUEST, REPLY, ANSWER = 32, 33, 34, 35, 36, 38, 39
WINDOW, FLUSH, PEER, GONE, RECEIVED = 48, 49, 50, 51, 52
HEADERS, PIECED, FAILED, WANTS_RECEIPT = 0x01, 0x02, 0x04, 0x08
PREFIX = struct.Struct(">BIBBBBBQQ")  # 0xC9, length, 0x53, kind, fds, flags, topic length, sender, correlation


def require(condition: object, sentence: str) -> None:
    if not condition:
        sys.exit(sentence)  # on stderr, with exit code 1


class Frame:
    def __init__(self, data: bytearray) -> None:
        mark, _, ext, self.kind, self.fd_count, self.flags, t, self.sender, self.number = PREFIX.unpack_from(data)
        at = PREFIX.size + t + (8 if self.flags & PIECED else 0)
        payload_at = at + (2 + int.from_bytes(data[at : at + 2]) if self.flags & HEADERS else 0)
        require((mark, ext) == (0xC9, 0x53) and payload_at <= len(data), "A broken frame came.")
        self.payload = data[payload_at:]  # that of a message's first frame grows with each PIECE
        self.total = int.from_bytes(data[at - 8 : at]) if self.flags & PIECED else len(self.payload)
        self.cost = payload_at + self.total  # of the message, for credit
        self.fds, self.peer = list[int](), dict[str, Any]()  # peer: the sender's PEER
        self.body: Any = None  # the payload unpacked, once it is whole


class Client:
    def __init__(self, address: str) -> None:
        transport, _, place = address.partition(":")
        require(transport in ("unix", "seqpacket", "stream", "tcp"), f"{address!r} is not the address of a broker.")
        self.records = transport in ("unix", "seqpacket")
        if transport == "tcp":
            host, _, port = place.rpartition(":")
            self.sock = socket.create_connection((host.strip("[]"), int(port)))
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET if self.records else socket.SOCK_STREAM)
            self.sock.connect(f"{place}/seqpacket" if transport == "unix" else place)
        self.sock.settimeout(30)
        self.buffer, self.fd_groups = bytearray(), list[list[int]]()  # what came and no frame took yet
        self.peer, self.carries_fds, self.fds_received, self.sent = 0, False, 0, [0] * 4  # sent: counted as in WINDOW
        self.unfinished = dict[tuple[int, int], Frame]()  # messages that lack pieces, by sender and number
        self.owners: dict[int, list[int]] = {PUBLISH: [], REPLY: []}  # of the next ones, as DELIVER and ANSWER said
        self.told = dict[tuple[int, int], list[Frame]]()  # all else that came, by kind and number, or owner
        self.send(HELLO, {"version": 1, "features": [] if transport == "tcp" else ["fds"], "name": "minimal"})
        welcome = self.wait(WELCOME, 0).body
        self.peer, self.window, self.carries_fds = welcome["peer"], welcome["window"], "fds" in welcome["features"]
        self.half_of_link_fds = max(1, welcome["limits"]["link_fds"] // 2)

    def send(self, kind: int, body: Any, number: int = 0, topic: str = "", flags: int = 0, *fds: int) -> None:
        name, data = topic.encode(), msgpack.packb(body)  # nothing sent here is so large that it needs pieces
        size = PREFIX.size + len(name) + len(data)
        if (i := {PUBLISH: 0, REQUEST: 2}.get(kind)) is not None:
            while self.sent[i] >= self.window[i] or (fds and self.sent[i + 1] >= self.window[i + 1]):
                self.step()
            self.sent[i : i + 2] = self.sent[i] + size, self.sent[i + 1] + len(fds)
        frame = PREFIX.pack(0xC9, size - 6, 0x53, kind, len(fds), flags, len(name), self.peer, number) + name + data
        while frame:  # a byte stream may take it in parts; the fds go with the first
            frame, fds = frame[socket.send_fds(self.sock, [frame], fds) :], ()

    def wait(self, kind: int, number: int) -> Frame:
        while not self.told.get((kind, number)):
            self.step()
        return self.told[kind, number].pop(0)

    def receive(self) -> Frame:
        while len(self.buffer) < (size := 6 + int.from_bytes(self.buffer[1:5])):  # not less while the length is cut
            require(size <= 65_536 and not (self.records if self.buffer else self.fd_groups), "A broken frame came.")
            data, fds, notes, _ = socket.recv_fds(self.sock, 65_536, 253, socket.MSG_CMSG_CLOEXEC)
            require(data and not notes & (socket.MSG_TRUNC | socket.MSG_CTRUNC), "The broker closed the connection.")
            self.buffer += data
            self.fd_groups += [fds] if fds else []
        frame, self.buffer = Frame(self.buffer[:size]), self.buffer[size:]
        if frame.fd_count and self.carries_fds:
            frame.fds = self.fd_groups.pop(0)
            require(len(frame.fds) == frame.fd_count, "The broker sent other descriptors than a frame declares.")
            self.fds_received += frame.fd_count
            if self.fds_received % self.half_of_link_fds < frame.fd_count:  # another half came
                self.send(RECEIVED, self.fds_received)
        return frame

    def step(self) -> None:
        frame = self.receive()
        key = frame.sender, frame.number
        if frame.kind == PIECE:
            piece, frame = frame, self.unfinished.pop(key)
            frame.payload += piece.payload
        elif frame.kind in (PUBLISH, REPLY):
            frame.number, frame.peer = self.owners[frame.kind].pop(0), self.told[PEER, frame.sender][-1].body
        require(len(frame.payload) <= frame.total, "The broker sent a message that is longer than it declares.")
        if len(frame.payload) < frame.total:
            self.unfinished[key] = frame
            return
        frame.body = msgpack.unpackb(frame.payload, strict_map_key=False)
        require(frame.kind not in (ERROR, GOODBYE) and not frame.flags & FAILED, f"The broker said {frame.body}.")
        if frame.kind == DELIVER:
            self.owners[PUBLISH] += [frame.number] * frame.body[0]  # body[1]: how many were lost
        elif frame.kind == ANSWER:
            self.owners[REPLY].append(frame.number)
        elif frame.kind == WINDOW:
            self.window = frame.body
        elif frame.kind == GONE:
            self.told.pop((PEER, frame.number))
        else:
            self.told.setdefault((frame.kind, frame.number), []).append(frame)


def main() -> None:
    client = Client(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SOCKBUS_ADDRESS", ""))
    topic, subscription, publish, request, flush = f"example.{client.peer}", 1, 3, 5, 7  # our numbers are odd
    client.send(SUBSCRIBE, {"group": None, "credit": [16, 65_536, 16], "fds": "strip"}, subscription, topic)
    client.wait(OK, subscription)
    with open(__file__) as file:
        client.send(PUBLISH, file.name, publish, topic, WANTS_RECEIPT, *([file.fileno()] if client.carries_fds else []))
    message = None
    while message is None or message.sender != client.peer:  # others may publish on the topic as well
        message = client.wait(PUBLISH, subscription)
        print(f"{message.peer} published {message.body} with {len(message.fds)} of {message.fd_count} descriptors.")
        for fd in message.fds:
            with open(fd) as received:
                print(f"Read through a descriptor: {received.readline().strip()}")
        client.send(CREDIT, [1, message.cost, len(message.fds)], subscription)  # consumed: the queue is empty again
    print(f"[matched, delivered, dropped, without_fds] = {client.wait(RECEIPT, publish).body}")
    client.send(REQUEST, None, request, "$SYS.status")
    print(f"The broker's status: {client.wait(REPLY, request).body}")
    client.send(FLUSH, None, flush)
    client.wait(OK, flush)
    client.send(GOODBYE, {"text": "The example ends."})
    client.sock.close()


if __name__ == "__main__":
    try:
        main()
    except (OSError, LookupError, TypeError, ValueError, struct.error) as error:
        sys.exit(f"The connection failed: {error!r}.")
