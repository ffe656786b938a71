//! What only the kernel can do and no crate has a safe function for: the one module here with `unsafe`.
#![expect(
    unsafe_code,
    reason = "calls of ioctl(2), setsockopt(2) and reboot(2), each with its argument built beside it"
)]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::io;
use rustix::ioctl::{Setter, ioctl, opcode};

/// `BLKPG` of `linux/blkpg.h`.
const BLKPG: rustix::ioctl::Opcode = opcode::none(0x12, 105);

/// `BLKPG_RESIZE_PARTITION`.
const RESIZE: i32 = 3;

/// `EXT4_IOC_RESIZE_FS` of `linux/fs/ext4/ext4.h`.
const EXT4_RESIZE: rustix::ioctl::Opcode = opcode::write::<u64>(b'f', 16);

/// `struct blkpg_partition`.
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Argument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *const Partition,
}

/// Tells the kernel that a partition of `disk` is longer now. `start` and `length` are bytes.
pub fn resize_partition(disk: impl AsFd, number: i32, start: i64, length: i64) -> io::Result<()> {
    let partition = Partition { start, length, number, device_name: [0; 64], volume_name: [0; 64] };
    let length = i32::try_from(size_of::<Partition>()).unwrap_or_default();
    let argument = Argument { operation: RESIZE, flags: 0, length, data: &raw const partition };
    // SAFETY: the kernel reads one `blkpg_ioctl_arg` and the `blkpg_partition` that it points to, both of which live until
    // the call returns and are laid out as `linux/blkpg.h` says, and writes nothing.
    unsafe { ioctl(disk, Setter::<BLKPG, Argument>::new(argument)) }
}

/// Grows a mounted ext4 to so many blocks. `folder` is any folder of it.
pub fn grow_ext4(folder: impl AsFd, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads one u64 and writes nothing.
    unsafe { ioctl(folder, Setter::<EXT4_RESIZE, u64>::new(blocks)) }
}

/// Keeps a socket to one interface.
pub fn bind_to_interface(socket: impl AsFd, interface: &str) -> io::Result<()> {
    let (name, length) = (interface.as_ptr(), libc::socklen_t::try_from(interface.len()).unwrap_or_default());
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `length` bytes of the name, which need not end with a zero.
    let result = unsafe { libc::setsockopt(descriptor, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.cast(), length) };
    if result == 0 { Ok(()) } else { Err(last()) }
}

/// Restarts the machine with a word for its firmware, and does not return unless that fails.
pub fn restart(word: &CStr) -> io::Result<()> {
    // SAFETY: the magic numbers are those of reboot(2), and the word is a string that ends with a zero.
    let result = unsafe {
        libc::syscall(
            libc::SYS_reboot,
            libc::LINUX_REBOOT_MAGIC1,
            libc::LINUX_REBOOT_MAGIC2,
            libc::LINUX_REBOOT_CMD_RESTART2,
            word.as_ptr(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last()) }
}

fn last() -> io::Errno {
    io::Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or_default())
}
