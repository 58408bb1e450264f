//! Arguments to command, `Fatal` to exit status.

fn main() -> std::process::ExitCode {
    ostler::cli::run()
}
