"""Attacks on the sandbox: each program calls ``leaked()`` or ``show(secret)`` if it succeeds.

Targets: OUTSIDE (a folder next to the workspace that contains a secret), REAL_HOME, VICTIM (the id
of a process outside), PORT, UDP and ABSTRACT (services of the host). ``apart`` tells whether the
level has its own mounts and process ids; without them, Landlock leaves a few things to the host's
own rules, which its docstring lists.
"""

# ruff: noqa: E501  (one program per line)

from __future__ import annotations

SECRET = "the-secret-of-the-host"

FILES = {
    "absolute path": "show(open(OUTSIDE + '/secret').read())",
    "dot dot": "show(open(os.path.relpath(OUTSIDE) + '/secret').read())",
    "symlink": "os.symlink(OUTSIDE, 'link'); show(open('link/secret').read())",
    "symlink swap": """
import threading
os.mkdir('real'); open('real/secret', 'w').close(); os.symlink('real', 'swap')
def swap():
    for n in range(3000):
        os.symlink(OUTSIDE if n % 2 else 'real', 'next'); os.replace('next', 'swap')
thread = threading.Thread(target=swap); thread.start()
while thread.is_alive():
    try: show(open('swap/secret').read())
    except OSError: pass
""",
    "hard link": "os.link(OUTSIDE + '/secret', 'mine'); show(open('mine').read())",
    "proc root": "show(open(f'/proc/{VICTIM}/root{OUTSIDE}/secret').read())",
    "proc cwd": "show(open(f'/proc/{VICTIM}/cwd/secret').read())",
    "ssh key in home": "show(open(os.environ['REAL_HOME'] + '/.ssh/id_rsa').read())",
    "listing the home folder": "show(SECRET if '.ssh' in os.listdir(os.environ['REAL_HOME']) else '')",
    "shadow": "open('/etc/shadow').read(); leaked()",
    "ssh host keys": "os.listdir('/etc/ssh'); [open(f).read() for f in glob.glob('/etc/ssh/*key')][0]; leaked()",
    "write outside": "open(OUTSIDE + '/secret', 'w').write('x'); leaked()",
    "create outside": "open(OUTSIDE + '/new', 'w').write('x'); leaked()",
    "write through a link": "os.symlink(OUTSIDE + '/new', 'l'); open('l', 'w').write('x'); leaked()",
    "delete outside": "os.unlink(OUTSIDE + '/secret'); leaked()",
    "rename outside": "os.rename(OUTSIDE + '/secret', OUTSIDE + '/other'); leaked()",
    "write to usr": "open('/usr/local/agentcli-attack', 'w').write('x'); leaked()",
    "write to etc": "open('/etc/agentcli-attack', 'w').write('x'); leaked()",
    "rc file in home": "open(os.environ['REAL_HOME'] + '/.bashrc', 'a').write('evil')",
    "core pattern": "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x'); leaked()",
    "sysrq": "open('/proc/sysrq-trigger', 'w').write('h'); leaked()",
    "disk device": "[open(d, 'rb').read(1) for d in glob.glob('/dev/vd*') + glob.glob('/dev/sd*') + glob.glob('/dev/nvme*n1')][0]; leaked()",
    "memory device": "open('/dev/mem', 'rb').read(1); leaked()",
    "proc self root": "show(open(f'/proc/self/root{OUTSIDE}/secret').read())",
    "root of the first process": "show(open(f'/proc/1/root{OUTSIDE}/secret').read())",
    "the parent folder": "os.chdir('../..'); show(open('outside/secret').read())",
    "create in the parent folder": "open('../../new', 'w').close(); os.path.exists(OUTSIDE + '/../new') and leaked()",
    "keys of a cloud": "show(open(os.environ['REAL_HOME'] + '/.aws/credentials').read())",
    "agentcli's own settings": "show(open(os.environ['REAL_HOME'] + '/.config/agentcli/config.toml').read())",
    "temporary files of the host": "any(n.startswith('agentcli-secret') for n in os.listdir('/tmp')) and leaked()",
    "truncate outside": "os.truncate(OUTSIDE + '/secret', 0); leaked()",
    "mode outside": "os.chmod(OUTSIDE + '/secret', 0o777); os.path.exists(OUTSIDE) and apart and leaked()",
    "times outside": "os.utime(OUTSIDE + '/secret', (0, 0)); os.path.exists(OUTSIDE) and apart and leaked()",
    "attributes outside": "os.setxattr(OUTSIDE + '/secret', 'user.x', b'1'); apart and leaked()",
    "program outside": "subprocess.run([OUTSIDE + '/program'], check=True); leaked()",
    "write to the toolchain": "open(os.path.join(sys.base_prefix, 'lib', 'agentcli-attack'), 'w'); leaked()",
    "copy of the home folder": "subprocess.run(['cp', '-r', os.environ['REAL_HOME'], 'h'], capture_output=True); show(open('h/.ssh/id_rsa').read())",
    "git clone of a folder outside": "subprocess.run(['git', 'clone', OUTSIDE, 'c'], capture_output=True); show(open('c/secret').read())",
    "git worktree outside": "subprocess.run(['git', 'worktree', 'add', OUTSIDE + '/new'], capture_output=True)",
    "rename the workspace": "os.rename(WORKSPACE, WORKSPACE + '2'); leaked()",
    "remove a device": "os.unlink('/dev/null'); leaked()",
    "create a device's name": "open('/dev/agentcli-attack', 'w'); leaked()",
    "kernel messages": "open('/dev/kmsg', 'rb').read(1); leaked()",
    "names of keys": "open('/proc/keys').read(1); apart and leaked()",
    "statistics for root": """
for name in ('kpagecgroup', 'kpagecount', 'kpageflags', 'pagetypeinfo', 'slabinfo', 'timer_list', 'vmallocinfo'):
    try: open('/proc/' + name, 'rb').read(8)
    except OSError: continue
    if apart: leaked()
""",
    "kernel memory": "open('/proc/kcore', 'rb').read(4); leaked()",
    "other devices": "[os.open(d, os.O_RDWR) for d in ('/dev/kvm', '/dev/fuse', '/dev/net/tun') if os.path.exists(d)][0]; leaked()",
    "control groups": "[open(p, 'w').write('0') for p in glob.glob('/sys/fs/cgroup/**/cgroup.procs', recursive=True)][0]; leaked()",
    "kernel settings": "open('/proc/sys/kernel/hostname', 'w').write('evil'); leaked()",
    "settings below sys": "open('/sys/kernel/mm/transparent_hugepage/enabled', 'w').write('never'); leaked()",
}

PROCESSES = {
    "environment of the victim": "show(open(f'/proc/{VICTIM}/environ').read())",
    "environment of the parents": """
for pid in os.listdir('/proc'):
    if pid.isdigit():
        try: show(open(f'/proc/{pid}/environ').read())
        except OSError: pass
""",
    "memory of the victim": "open(f'/proc/{VICTIM}/mem', 'rb').read(1); leaked()",
    "signal": "os.kill(VICTIM, 0); os.kill(VICTIM, 15); leaked()",
    "signal everyone": "os.kill(-1, 0)",
    "ptrace attach": "check(libc.ptrace(16, VICTIM, 0, 0)); leaked()",
    "ptrace seize": "check(libc.ptrace(0x4206, VICTIM, 0, 0)); leaked()",
    "process_vm_readv": "check(libc.syscall(310, VICTIM, 0, 0, 0, 0, 0)); leaked()",
    "pidfd_getfd": "fd = os.pidfd_open(VICTIM); check(libc.syscall(438, fd, 0, 0)); leaked()",
    "inherited descriptors": """
for fd in range(3, 1000):
    try: target = os.readlink(f'/proc/self/fd/{fd}')
    except OSError: continue
    if 'socket' in target or OUTSIDE in target: leaked()
""",
    "environment of the first process": "show(open('/proc/1/environ').read())",
    "command lines": "[show(open(f'/proc/{p}/cmdline').read()) for p in os.listdir('/proc') if p.isdigit()]",
    "memory of the first process": "f = open('/proc/1/mem', 'rb'); f.seek(int(open('/proc/1/maps').read().split('-')[0], 16)); f.read(1); leaked()",
    "memory of the first thread": "f = open('/proc/1/task/1/mem', 'rb'); f.seek(int(open('/proc/1/task/1/maps').read().split('-')[0], 16)); f.read(1); leaked()",
    "descriptors of the first process": "os.readlink(glob.glob('/proc/1/fd/*')[0]); leaked()",
    "ptrace the first process": "check(libc.ptrace(16, 1, 0, 0)); leaked()",
    "seize the first process": "check(libc.ptrace(0x4206, 1, 0, 0)); leaked()",
    "ptrace with high bits": "check(libc.syscall(101, 16, ctypes.c_long((1 << 32) + 1), 0, 0)); leaked()",
    "signal to a thread": "check(libc.syscall(234, VICTIM, VICTIM, 15)); leaked()",
    "signal by pidfd": "import signal; signal.pidfd_send_signal(os.pidfd_open(VICTIM), 15); leaked()",
    "limits of the victim": "import resource; resource.prlimit(VICTIM, resource.RLIMIT_CPU, (1, 1)); apart and leaked()",
    "priority of the victim": "os.setpriority(os.PRIO_PROCESS, VICTIM, 19); apart and leaked()",
    "processors of the victim": "os.sched_setaffinity(VICTIM, {0}); apart and leaked()",
    "compare descriptors": "check(libc.syscall(312, os.getpid(), VICTIM, 0, 0, 0)); leaked()",
    "memory advice": "check(libc.syscall(440, 3, 0, 0, 0, 0)); leaked()",
    "namespaces of the victim": "check(libc.setns(os.open(f'/proc/{VICTIM}/ns/mnt', 0), 0)); leaked()",
    "shared memory of the host": "apart and os.listdir('/dev/shm') and leaked()",
}

NETWORK = {
    "tcp to the host": "socket.create_connection(('127.0.0.1', PORT), 2); leaked()",
    "tcp to the internet": "socket.create_connection(('1.1.1.1', 53), 2); leaked()",
    "udp to the host": """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)
s.sendto(b'x', ('127.0.0.1', UDP)); s.recv(1); leaked()
""",
    "unix socket of the host": "s = socket.socket(socket.AF_UNIX); s.connect(OUTSIDE + '/socket'); leaked()",
    "unix datagram": "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(OUTSIDE + '/datagram'); leaked()",
    "abstract socket": "s = socket.socket(socket.AF_UNIX); s.connect('\\0' + ABSTRACT); leaked()",
    "audit netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9); leaked()",
    "udev netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15); leaked()",
    "packet socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3); leaked()",
    "vsock": "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM); leaked()",
    "kernel crypto": "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET); leaked()",
    "interfaces of the host": """
names = {name for _, name in socket.if_nameindex()} - {'lo', 'sit0', 'tunl0', 'ip6tnl0'}
names = {n for n in names if not any(w in n for w in ('gre', 'vti', 'tnl', 'tunl', 'sit', 'erspan'))}
if names: leaked()
""",
    "tcp over IPv6": "socket.create_connection(('::1', PORT), 2); leaked()",
    "look up a name": "socket.getaddrinfo('example.com', 80); leaked()",
    "ask a name server": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(bytes(20), ('1.1.1.1', 53)); leaked()",
    "metadata of a cloud": "socket.create_connection(('169.254.169.254', 80), 2); leaked()",
    "raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); leaked()",
    "system bus": "s = socket.socket(socket.AF_UNIX); s.connect('/run/dbus/system_bus_socket'); leaked()",
    "docker": "s = socket.socket(socket.AF_UNIX); s.connect('/var/run/docker.sock'); leaked()",
    "other netlink families": "[socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, n) for n in (2, 4, 5, 6, 10, 11, 12, 16, 18, 20)][0]; leaked()",
    "change an interface": "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); s.bind((0, 0)); s.send(struct.pack('IHHII', 32, 16, 5, 1, 0) + struct.pack('BxHiII', 0, 0, 1, 0, 1)); struct.unpack_from('i', s.recv(4096), 16)[0] == 0 and leaked()",
    "rare families": "[socket.socket(n, kind) for n in (21, 29, 30, 31, 41, 43, 44) for kind in (1, 2, 3, 5)][0]; leaked()",
    "pair of packet sockets": "check(libc.socketpair(17, 3, 0, (ctypes.c_int * 2)())); leaked()",
}

KERNEL = {
    "new user namespace": "check(libc.unshare(0x10000000)); leaked()",
    "new user namespace by clone": "check(libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)) and leaked()",
    "new user namespace by clone3": "check(libc.syscall(435, b'\\0\\0\\0\\x10' + bytes(60), 64)) and leaked()",
    "mount": "check(libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)); leaked()",
    "chroot": "os.chroot('.'); leaked()",
    "pivot root": "check(libc.syscall(155, b'.', b'.')); leaked()",
    "new mount api": "check(libc.syscall(430, b'tmpfs', 0)); leaked()",
    "bpf": "check(libc.syscall(321, 0, bytes(64), 64)); leaked()",
    "perf": "check(libc.syscall(298, bytes(120), 0, -1, -1, 0)); leaked()",
    "io_uring": "check(libc.syscall(425, 4, bytes(120))); leaked()",
    "userfaultfd": "check(libc.syscall(323, 1)); leaked()",
    "keyctl": "check(libc.syscall(250, 0, -3, 1, 0, 0)); leaked()",
    "open by handle": "check(libc.syscall(304, -100, bytes(64), 0)); leaked()",
    "load a module": "check(libc.syscall(313, 0, b'', 0)); leaked()",
    "kexec": "check(libc.syscall(246, 0, 0, 0, 0)); leaked()",
    "reboot": "check(libc.syscall(169, 0xfee1dead, 672274793, 0, 0)); leaked()",
    "host name": "socket.sethostname('evil'); leaked()",
    "clock": "time.clock_settime(time.CLOCK_REALTIME, time.time()); leaked()",
    "capabilities": "int([l for l in open('/proc/self/status') if l.startswith('CapEff')][0].split()[1], 16) and leaked()",
    "capabilities by exec": "b'CapEff:\\t0000000000000000' in subprocess.check_output(['cat', '/proc/self/status']) or leaked()",
    "set-user-id by chmod": "open('s', 'w').close(); os.chmod('s', 0o4755); leaked()",
    "set-user-id by fchmod": "f = open('s', 'w'); os.fchmod(f.fileno(), 0o4755); leaked()",
    "set-user-id at creation": "os.open('s', os.O_CREAT | os.O_WRONLY, 0o4755); leaked()",
    "set-group-id": "open('s', 'w').close(); os.chmod('s', 0o2755); leaked()",
    "device node": "os.mknod('n', 0o60666, os.makedev(254, 0)); leaked()",
    "another user": "os.setuid(12345); leaked()",
    "terminal injection": """
import pty, fcntl
master, slave = pty.openpty(); fcntl.ioctl(slave, 0x5412, b'x'); leaked()
""",
    "controlling terminal": "open('/dev/tty').close(); leaked()",
    "no new privileges": "'NoNewPrivs:\\t1' in open('/proc/self/status').read() or leaked()",
    "core dumps": "import resource; resource.setrlimit(resource.RLIMIT_CORE, (1, 1)); leaked()",
    "new network": "check(libc.unshare(0x40000000)); leaked()",
    "new mounts": "check(libc.unshare(0x20000)); leaked()",
    "own bubblewrap": "subprocess.run(['bwrap', '--dev-bind', '/', '/', 'true'], check=True, capture_output=True); leaked()",
    "unmount": "check(libc.umount2(b'/tmp', 2)); leaked()",
    "remount": "check(libc.mount(b'none', b'/usr', None, 32, None)); leaked()",
    "set-user-id by another call": "open('s', 'w').close(); check(libc.syscall(452, -100, b's', 0o4755, 0)); leaked()",
    "set-user-id by install": "subprocess.run(['install', '-m', '4755', '/bin/sh', 's'], capture_output=True); os.stat('s').st_mode & 0o6000 and leaked()",
    "file capabilities": "open('s', 'w').close(); os.setxattr('s', 'security.capability', bytes.fromhex('0100000200ffffff00000000ffffffff00000000')); leaked()",
    "other owner": "open('s', 'w').close(); os.chown('s', 12345, 12345); leaked()",
    "other groups": "os.setgroups([0, 1, 2]); leaked()",
    "regain capabilities": "check(libc.capset(struct.pack('Ii', 0x20080522, 0), struct.pack('6I', *[0xffffffff] * 6))); leaked()",
    "ports": "check(libc.syscall(172, 3)); leaked()",
    "swap": "check(libc.syscall(167, b's', 0)); leaked()",
    "fanotify": "check(libc.syscall(300, 0, 0)); leaked()",
    "accounting": "check(libc.syscall(163, b's')); leaked()",
    "kernel log": "check(libc.klogctl(3, ctypes.create_string_buffer(100), 100)); leaked()",
    "quota": "check(libc.syscall(179, 0x80000100, b'/', 0, 0)); leaked()",
    "calls of i386": """
import mmap
code = mmap.mmap(-1, 4096, prot=7); code.write(bytes.fromhex('b814000000cd80c3'))
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))() > 0 and leaked()
""",
    "calls of x32": "libc.syscall(0x40000000 + 39) > 0 and leaked()",
    "more open files": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20)); leaked()",
    "larger files": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1)); leaked()",
    "real-time priority": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)); leaked()",
    "higher priority": "os.nice(-10); leaked()",
    "terminal injection with high bits": "import pty; check(libc.ioctl(pty.openpty()[1], ctypes.c_ulong(0x100005412), b'x')); leaked()",
    "console commands": "import fcntl, pty; fcntl.ioctl(pty.openpty()[1], 0x541C, b'\x02'); leaked()",
}

ATTACKS = {"files": FILES, "processes": PROCESSES, "network": NETWORK, "kernel": KERNEL}
