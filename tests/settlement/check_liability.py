"""Check that you are counted in, without any part of Wellhead: python check_liability.py PROOF.json TOTAL ROOT_IN_HEX"""

import json
import sys
from hashlib import sha256
from pathlib import Path

proof, total, root = json.loads(Path(sys.argv[1]).read_bytes())["liability"], int(sys.argv[2]), sys.argv[3]


def number(value, size):
    return value.to_bytes(size, "big")  # fails below zero


own = number(proof["cycle"], 8) + number(proof["account"], 8) + number(proof["owed_micros"], 16)
node = (number(proof["owed_micros"], 16), sha256(b"wellhead owed 1\n" + own).digest())
index, width, partners = proof["index"], proof["leaves"], list(proof["partners"])
while width > 1:
    if index ^ 1 < width:
        amount, digest = partners.pop(0)
        pair = [(number(amount, 16), bytes.fromhex(digest)), node]
        left, right = pair if index % 2 else pair[::-1]
        amount = int.from_bytes(left[0], "big") + int.from_bytes(right[0], "big")
        node = (number(amount, 16), sha256(b"wellhead sums 1\n" + b"".join(left + right)).digest())
    index, width = index // 2, (width + 1) // 2
top = sha256(b"wellhead total 1\n" + number(proof["leaves"], 8) + node[0] + node[1]).hexdigest()
sys.exit(0 if top == root and int.from_bytes(node[0], "big") == total and not partners else "you are not counted in")
