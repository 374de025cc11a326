#!/usr/bin/python3 -IS
"""A CNI plugin for tests: appends each call to $RECORD as a JSON line and answers as its configuration says
({"fail": {"ADD": {...error...}}, "sleep": {...}, "result": {...}})."""

import json
import os
import sys
import time

verb = os.environ["CNI_COMMAND"]
conf = json.loads(sys.stdin.read() or "{}")
call = {key: value for key, value in os.environ.items() if key.startswith("CNI_")} | {"conf": conf}
with open(os.environ["RECORD"], "a", encoding="utf-8") as file:
    file.write(json.dumps(call) + "\n")
time.sleep(conf.get("sleep", {}).get(verb, 0))
if verb in conf.get("garbled", {}):
    sys.stdout.write(conf["garbled"][verb])
    sys.stderr.write("it broke")
    sys.exit(2)
if verb in conf.get("fail", {}):
    json.dump(conf["fail"][verb], sys.stdout)
    sys.exit(1)
if verb == "ADD":
    json.dump(conf.get("result") or conf.get("prevResult") or {}, sys.stdout)
if verb == "VERSION":
    json.dump({"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}, sys.stdout)
