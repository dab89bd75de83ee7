//! The `wizer` program. All of it is in [`wizer::cli`], which Node runs as well.

fn main() -> std::process::ExitCode {
    let args = std::env::args_os().skip(1);
    wizer::cli::run(args).into()
}
