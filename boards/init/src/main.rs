//! `/init` of the initramfs: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("holm-init: this is the first process of a board that boots from a Holm card, and nothing else");
        return ExitCode::from(2);
    }
    holm_init::boot::run();
    // The kernel panics when its first process ends, and restarts by `panic=` of the command line.
    ExitCode::FAILURE
}
