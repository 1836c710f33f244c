//! The end of a process that has used MLX.

use std::{
    ffi::c_int,
    io::{Write as _, stdout},
};

// SAFETY: as C and POSIX declare it; it takes any code and does not return.
unsafe extern "C" {
    safe fn _exit(code: c_int) -> !;
}

/// Flushes stdout and ends the process, without running the destructors of C++'s statics.
///
/// MLX's allocator is such a static. A thread that gives a model back while `exit` destroys it frees into what is no longer a
/// heap, and the process aborts after all its work is done.
pub fn exit(code: u8) -> ! {
    // Whoever reads it may have gone: then there is nobody left to tell.
    let _ = stdout().flush();
    _exit(code.into())
}
