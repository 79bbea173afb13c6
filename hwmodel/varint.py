"""Numbers of any size in as few bytes as they need: seven bits in each, the lowest first (LEB128)."""

from __future__ import annotations

from hwmodel.errors import BlobError

LONGEST = 10
"""Bytes of a number of 64 bits."""


def put_unsigned(content: bytearray, *numbers: int) -> None:
    """Append numbers from 0 to 2**64 - 1; all bytes but the last have their highest bit set."""
    for number in numbers:
        rest = number
        while rest > 127:
            content.append(rest & 127 | 128)
            rest >>= 7
        content.append(rest)


def put_signed(content: bytearray, *numbers: int) -> None:
    """Append signed numbers: n as 2n, and -n as 2n - 1."""
    for number in numbers:
        put_unsigned(content, 2 * number if number >= 0 else -2 * number - 1)


class Cursor:
    """A place in bytes that moves on as they are read.

    Attributes:
        place: of the next byte.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.place = 0

    def bytes(self, count: int) -> bytes:
        """The next bytes.

        Raises:
            BlobError: when there are not so many.
        """
        if count > len(self._content) - self.place:
            msg = f"{count} bytes should follow byte {self.place} of {len(self._content)}"
            raise BlobError(msg)
        self.place += count
        return self._content[self.place - count : self.place]

    def unsigned(self) -> int:
        """The next number.

        Raises:
            BlobError: when it does not end, has more than 64 bits, or takes more bytes than it needs.
        """
        number = 0
        for i in range(LONGEST):
            [byte] = self.bytes(1)
            number |= (byte & 127) << 7 * i
            if byte < 128:
                if number >> 64 or (i and not byte):
                    break
                return number
        msg = f"the number before byte {self.place} is not as short as it can be, or too large"
        raise BlobError(msg)

    def signed(self) -> int:
        """The next signed number; raises :class:`BlobError` as :meth:`unsigned`."""
        number = self.unsigned()
        return -(number + 1) // 2 if number & 1 else number // 2
