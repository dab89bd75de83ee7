"""Runs a program and writes what it used, as JSON.

    python3 resources.py REPORT PROGRAM [ARGUMENT...]

Standard streams and the exit status are the program's own. The operating
system hands a process's resource usage to its parent alone, and Node has no
call to ask for it.

A spawned process starts with its parent's peak of memory on its account, so
no program shows less than this one's own, about 14 MB.
"""

import json
import os
import sys

report, program = sys.argv[1], sys.argv[2:]

pid = os.posix_spawnp(program[0], program, os.environ)
_, status, usage = os.wait4(pid, 0)

# getrusage(2): kibibytes on Linux and the BSDs, bytes on macOS.
unit = 1 if sys.platform == "darwin" else 1024
with open(report, "w") as file:
    json.dump(
        {
            "peakRssBytes": usage.ru_maxrss * unit,
            "cpuMs": (usage.ru_utime + usage.ru_stime) * 1000,
        },
        file,
    )

code = os.waitstatus_to_exitcode(status)
sys.exit(code if code >= 0 else 128 - code)
