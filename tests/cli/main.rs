//! The command line as its users meet it: the built program, its exit codes, what it prints and what it leaves.
//!
//! Everything runs on the processor but one capture. A missing adapter and a missing right to mount show as ignored, with
//! the reason; `AUSCULT_REQUIRE_WGPU=1` makes a missing adapter a failure.

mod capture;
mod capture_sae;
mod commands;
#[cfg(target_os = "linux")]
mod disk;
mod edits;
mod explain;
mod faults;
mod features;
mod generate;
#[cfg(unix)]
mod interrupt;
mod melody;
mod sae;
mod sae_align;
mod sae_eval;
#[cfg(unix)]
mod sae_train;
mod store;
mod support;
#[cfg(unix)]
mod takes_resume;
mod text;
mod told;
mod trained;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

/// Tests from functions, named after the module and the function.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        pub fn trials() -> Vec<libtest_mimic::Trial> {
            let module = module_path!().rsplit("::").next().unwrap_or_default();
            vec![$(libtest_mimic::Trial::test(format!("{module}::{}", stringify!($name)), || {
                $name();
                Ok(())
            })),*]
        }
    };
}
pub(crate) use trials;

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let model = (!args.list).then(support::make_model);
    let groups = [
        capture::trials(),
        capture_sae::trials(),
        commands::trials(),
        edits::trials(),
        explain::trials(),
        faults::trials(),
        features::trials(),
        generate::trials(),
        melody::trials(),
        sae::trials(),
        sae_align::trials(),
        sae_eval::trials(),
        store::trials(),
        text::trials(),
        told::trials(),
    ];
    let mut all: Vec<Trial> = groups.into_iter().flatten().collect();
    all.extend(capture::on_an_adapter(args.list));
    #[cfg(unix)]
    all.extend(interrupt::trials().into_iter().chain(sae_train::trials()).chain(takes_resume::trials()));
    #[cfg(target_os = "linux")]
    all.extend(disk::mounted_trials(args.list));
    let code = libtest_mimic::run(&args, all).exit_code();
    drop(model);
    code
}
