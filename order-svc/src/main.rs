//! How the process starts. All of it is in the library, so that it is compiled once.

use std::process::ExitCode;

fn main() -> ExitCode {
    order_svc::app::main()
}
