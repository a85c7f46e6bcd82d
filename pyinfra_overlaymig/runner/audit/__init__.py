"""Who changed what: the kernel's audit of one session. Only what is here, and the lab's keeper, talks to audit.

A process that writes to /proc/self/loginuid gets a new session id, which all its descendants inherit, daemons too.
Rules name that session, so they match nothing once its last process is gone, however it ended. A machine that shares
its kernel with others may not set rules: there a keeper outside does it (FORMAT.md, "Shared audit").

  DIR/state     `on`, or why this is not watched    DIR/log      the audit log, as it can be opened from here
  DIR/session   its session id                      DIR/quiet    devices that are not watched
  DIR/uppers    of a stage, where all that can change are overlays: the type of the file system that has their uppers
  DIR/lost      the kernel's count of lost records, before and after
  DIR/records   what the log holds from the session's begin to its end, of other sessions too
  DIR/places    device and path of each root that is watched; DIR/inodes: what its entries are called in the end
  DIR/who       what FORMAT.md calls who.list       DIR/seen     how many events there were
  DIR/unexplained   how many paths are not; there once all is read

Where no auditd runs, one runs for our sessions. SYSTEM/audit/ has its configuration and log; RUN/audit/ its pid
(`daemon`), the kernel's settings before it (`before`; `terse` if kinds of records are left out), and `open`, which each
session that is open holds by flock(2).
"""
