"""Check a statement's proof without any part of Wellhead: python check_inclusion.py 7.json ROOT_IN_HEX"""

import json
import sys
from hashlib import sha256
from pathlib import Path

statement, root = json.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2]
proof = statement["proof"]
numbers = [statement["cycle"], statement["account"]]
numbers += [int(proof[name].replace(".", "")) for name in ("net", "external")]
data = b"".join(number.to_bytes(8, "big", signed=True) for number in numbers)
node = sha256(b"wellhead leaf 1\n" + sha256(data).digest()).digest()
index, width, partners = proof["index"], proof["leaves"], [bytes.fromhex(text) for text in proof["partners"]]
while width > 1:
    if index ^ 1 < width:
        partner = partners.pop(0)
        node = sha256(b"wellhead node 1\n" + (partner + node if index % 2 else node + partner)).digest()
    index, width = index // 2, (width + 1) // 2
top = sha256(b"wellhead root 1\n" + proof["leaves"].to_bytes(8, "big") + node).hexdigest()
sys.exit(0 if top == root and not partners else "not in this batch")
