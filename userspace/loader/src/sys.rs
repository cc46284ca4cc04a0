//! BPF commands that the libraries do not offer in safe Rust.

use crate::Error;
use aya_obj::Function;
use libbpf_rs::libbpf_sys::{
    BPF_PROG_TYPE_XDP, BPF_XDP, bpf_btf_load, bpf_func_info, bpf_insn, bpf_line_info, bpf_link_detach,
    bpf_link_get_fd_by_id, bpf_obj_pin, bpf_prog_load, bpf_prog_load_opts,
};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;

/// Bytes of the verifier's log that are kept at most.
const LOG_MAX: usize = 16 << 20;

fn opened(result: i32) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Opens the link with this id.
pub(crate) fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: it takes a number and reads no memory of ours.
    opened(unsafe { bpf_link_get_fd_by_id(id) })
}

/// Detaches a link, whoever else holds it.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open, and no memory of ours is read.
    done(unsafe { bpf_link_detach(link.as_raw_fd()) })
}

/// Pins a program or a map.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a NUL and lives until the call returns.
    done(unsafe { bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) })
}

/// Loads an object's types.
pub(crate) fn btf_load(types: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes as it is told, which are there; without options it writes none.
    opened(unsafe { bpf_btf_load(types.as_ptr().cast(), types.len() as u64, null_mut()) })
}

/// An XDP program to be loaded.
pub(crate) struct NewProgram<'a> {
    pub name: &'a str,
    pub license: &'a CStr,
    /// Its instructions, with the maps' descriptors in them, and the lines that they come from.
    pub code: &'a Function,
    /// The types that the lines refer to.
    pub btf: Option<BorrowedFd<'a>>,
}

/// Loads an XDP program.
///
/// # Errors
/// The kernel refuses it: with the verifier's log, for which it is loaded once more.
pub(crate) fn xdp_load(new: &NewProgram<'_>) -> Result<OwnedFd, Error> {
    try_load(new, &mut []).map_err(|cause| {
        let mut log = vec![0; LOG_MAX];
        // The first error is the one to report.
        drop(try_load(new, &mut log));
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        let log = String::from_utf8_lossy(&log[..end]).into_owned();
        Error::Verifier { program: new.name.to_owned(), cause: cause.to_string(), log }
    })
}

fn try_load(new: &NewProgram<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let NewProgram { name, license, code, btf } = *new;
    let name = CString::new(name)?;
    let (functions, lines) = (code.func_info.func_info_bytes(), code.line_info.line_info_bytes());
    let mut options = bpf_prog_load_opts {
        sz: size_of::<bpf_prog_load_opts>() as u64,
        // Programs that call each other's tails must have the same.
        expected_attach_type: BPF_XDP,
        ..bpf_prog_load_opts::default()
    };
    if let Some(btf) = btf {
        options.prog_btf_fd = btf.as_raw_fd() as u32;
        options.func_info = functions.as_ptr().cast();
        options.func_info_cnt = code.func_info.len() as u32;
        options.func_info_rec_size = size_of::<bpf_func_info>() as u32;
        options.line_info = lines.as_ptr().cast();
        options.line_info_cnt = code.line_info.len() as u32;
        options.line_info_rec_size = size_of::<bpf_line_info>() as u32;
    }
    if !log.is_empty() {
        options.log_level = 1;
        options.log_buf = log.as_mut_ptr().cast();
        options.log_size = log.len() as u32;
    }
    const { assert!(size_of::<bpf_insn>() == 8) };
    let instructions: *const bpf_insn = code.instructions.as_ptr().cast();
    let count = code.instructions.len() as u64;
    // SAFETY: name and licence end with a NUL; instructions, the log and both lists of records are as long as the kernel is
    // told (aya writes records without what newer compilers may add to them), the instructions of either library are the
    // kernel's eight bytes each, and all live until the call returns.
    opened(unsafe {
        bpf_prog_load(
            BPF_PROG_TYPE_XDP,
            name.as_ptr(),
            license.as_ptr(),
            instructions,
            count,
            &raw mut options,
        )
    })
}

fn done(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
