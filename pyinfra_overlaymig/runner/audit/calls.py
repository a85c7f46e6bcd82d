"""System calls by name and number, for each of a machine's two ABIs: rules name them by number, and `os` knows none."""

import os

_X86_64 = (
    "open 2 openat 257 openat2 437 creat 85 truncate 76 mkdir 83 mkdirat 258 rmdir 84 rename 82 renameat 264 "
    "renameat2 316 link 86 linkat 265 unlink 87 unlinkat 263 symlink 88 symlinkat 266 mknod 133 mknodat 259 "
    "chmod 90 fchmodat 268 fchmodat2 452 chown 92 lchown 94 fchownat 260 utime 132 utimes 235 futimesat 261 "
    "utimensat 280 setxattr 188 lsetxattr 189 fsetxattr 190 removexattr 197 lremovexattr 198 fremovexattr 199 "
    "execve 59 execveat 322 fork 57 vfork 58 clone 56 clone3 435"
)
_I386 = (
    "open 5 openat 295 openat2 437 creat 8 truncate 92 truncate64 193 mkdir 39 mkdirat 296 rmdir 40 rename 38 "
    "renameat 302 renameat2 353 link 9 linkat 303 unlink 10 unlinkat 301 symlink 83 symlinkat 304 mknod 14 "
    "mknodat 297 chmod 15 fchmodat 306 fchmodat2 452 chown 182 chown32 212 lchown 16 lchown32 198 fchownat 298 "
    "utime 30 utimes 271 futimesat 299 utimensat 320 utimensat_time64 412 setxattr 226 lsetxattr 227 "
    "fsetxattr 228 removexattr 235 lremovexattr 236 fremovexattr 237 execve 11 execveat 358 fork 2 vfork 190 "
    "clone 120 clone3 435"
)
_AARCH64 = (
    "openat 56 openat2 437 truncate 45 mkdirat 34 renameat 38 renameat2 276 linkat 37 unlinkat 35 symlinkat 36 "
    "mknodat 33 fchmodat 53 fchmodat2 452 fchownat 54 utimensat 88 setxattr 5 lsetxattr 6 fsetxattr 7 "
    "removexattr 14 lremovexattr 15 fremovexattr 16 execve 221 execveat 281 clone 220 clone3 435"
)
_ARM = (
    "open 5 openat 322 openat2 437 creat 8 truncate 92 truncate64 193 mkdir 39 mkdirat 323 rmdir 40 rename 38 "
    "renameat 329 renameat2 382 link 9 linkat 330 unlink 10 unlinkat 328 symlink 83 symlinkat 331 mknod 14 "
    "mknodat 324 chmod 15 fchmodat 333 fchmodat2 452 chown 182 chown32 212 lchown 16 lchown32 198 fchownat 325 "
    "utimes 269 futimesat 326 utimensat 348 utimensat_time64 412 setxattr 226 lsetxattr 227 fsetxattr 228 "
    "removexattr 235 lremovexattr 236 fremovexattr 237 execve 11 execveat 387 fork 2 vfork 190 clone 120 "
    "clone3 435"
)
# AUDIT_ARCH_* of linux/audit.h.
_MACHINES = {
    "x86_64": ((0xC000003E, _X86_64), (0x40000003, _I386)),
    "aarch64": ((0xC00000B7, _AARCH64), (0x40000028, _ARM)),
}


def abis() -> list[tuple[int, dict[str, int]]]:
    """The number of each ABI of this machine, the 64-bit one first, and its calls; none of a machine not known here."""
    return [(number, _numbers(text)) for number, text in _MACHINES.get(os.uname().machine, ())]


def _numbers(text: str) -> dict[str, int]:
    words = text.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))
