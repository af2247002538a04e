//! What each layer of `cargo verify` runs, and which tests of the tree belong to it.
//!
//! It runs nothing; `verify.rs` does. A new test file belongs to a layer by its place alone.

use crate::binaries::Built;
use crate::cli::{Layer, Verify};

/// All layers, in the order in which they run.
pub(crate) const ALL: [Layer; 10] = [
    Layer::Fmt,
    Layer::Clippy,
    Layer::Deny,
    Layer::Unit,
    Layer::Contract,
    Layer::Integration,
    Layer::Tidy,
    Layer::Mutants,
    Layer::E2e,
    Layer::Long,
];

/// The libraries whose tests are contracts.
const CONTRACT_PACKAGES: [&str; 3] = ["events", "engine", "edge"];
/// The package that sees the system from outside.
const OUTSIDE: &str = "e2e";
/// Its test of the tree, which needs no servers.
const TIDY: &str = "tidy";
/// Its runs that are too long for every day, or too much at the mercy of a busy machine.
const LONG: [&str; 3] = ["accidents", "chaos", "outages"];

/// The layers that the options ask for.
pub(crate) fn chosen(options: &Verify) -> Vec<Layer> {
    ALL.into_iter()
        .filter(|layer| options.only.is_empty() || options.only.contains(layer))
        .filter(|layer| !options.quick || !needs_stack(*layer))
        .filter(|layer| *layer != Layer::Long || options.full || options.only.contains(layer))
        .collect()
}

/// Whether the layer's tests want Kafka, Postgres and the others.
pub(crate) fn needs_stack(layer: Layer) -> bool {
    matches!(layer, Layer::Contract | Layer::Integration | Layer::Mutants | Layer::E2e | Layer::Long)
}

/// Whether the layer consists of tests that cargo builds.
pub(crate) fn has_tests(layer: Layer) -> bool {
    !matches!(layer, Layer::Fmt | Layer::Clippy | Layer::Deny)
}

/// How many tests of one binary run at once: those from outside share processes and ports.
pub(crate) fn test_threads(layer: Layer) -> &'static str {
    if matches!(layer, Layer::E2e | Layer::Long) { "1" } else { "4" }
}

/// The tests of a layer, in the order of their names.
pub(crate) fn tests_of(layer: Layer, built: &[Built]) -> Vec<&Built> {
    if layer == Layer::Mutants {
        // Not more of the tree's tests, but some of them again.
        return built.iter().filter(|test| test.test && test.package == "engine").collect();
    }
    let mut tests: Vec<&Built> = built.iter().filter(|test| layer_of(test) == Some(layer)).collect();
    tests.sort_by_key(|test| (&test.package, &test.target));
    tests
}

/// The layer that a test belongs to; nothing for a program.
fn layer_of(built: &Built) -> Option<Layer> {
    if !built.test {
        return None;
    }
    if built.kind != "test" {
        return Some(Layer::Unit);
    }
    Some(match built.package.as_str() {
        OUTSIDE if built.target == TIDY => Layer::Tidy,
        OUTSIDE if LONG.contains(&built.target.as_str()) => Layer::Long,
        OUTSIDE => Layer::E2e,
        package if CONTRACT_PACKAGES.contains(&package) => Layer::Contract,
        _ => Layer::Integration,
    })
}

/// What a person types to run one test binary again.
pub(crate) fn as_command(built: &Built) -> String {
    let target = match built.kind.as_str() {
        "test" => format!("--test {}", built.target),
        "bin" => format!("--bin {}", built.target),
        _ => "--lib".to_owned(),
    };
    format!("cargo test -p {} {target}", built.package)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(package: &str, target: &str, kind: &str, test: bool) -> Built {
        Built {
            package_folder: package.into(),
            package: package.into(),
            target: target.into(),
            kind: kind.into(),
            test,
            path: "x".into(),
        }
    }

    fn options(quick: bool, only: &[Layer]) -> Verify {
        Verify { quick, full: false, only: only.to_vec(), no_root: false }
    }

    #[test]
    fn a_test_belongs_to_a_layer_by_its_place() {
        let cases = [
            (built("order-svc", "order_svc", "lib", true), Some(Layer::Unit)),
            (built("order-svc", "order-svc", "bin", true), Some(Layer::Unit)),
            (built("order-svc", "order-svc", "bin", false), None),
            (built("order-svc", "it", "test", true), Some(Layer::Integration)),
            (built("simulators", "it", "test", true), Some(Layer::Integration)),
            (built("engine", "it", "test", true), Some(Layer::Contract)),
            (built("events", "golden", "test", true), Some(Layer::Contract)),
            (built("e2e", "tidy", "test", true), Some(Layer::Tidy)),
            (built("e2e", "flows", "test", true), Some(Layer::E2e)),
            (built("e2e", "chaos", "test", true), Some(Layer::Long)),
        ];
        for (built, layer) in cases {
            assert_eq!(layer_of(&built), layer, "{built:?}");
        }
    }

    #[test]
    fn quick_needs_no_servers() {
        let layers = chosen(&options(true, &[]));
        assert_eq!(layers, [Layer::Fmt, Layer::Clippy, Layer::Deny, Layer::Unit, Layer::Tidy]);
    }

    #[test]
    fn only_takes_what_it_names() {
        assert_eq!(chosen(&options(false, &[Layer::E2e, Layer::Fmt])), [Layer::Fmt, Layer::E2e]);
        assert_eq!(chosen(&options(false, &[])), ALL[..9], "some take too long for every day");
    }

    #[test]
    fn the_command_to_repeat_names_the_target() {
        assert_eq!(as_command(&built("engine", "it", "test", true)), "cargo test -p engine --test it");
        assert_eq!(as_command(&built("engine", "engine", "lib", true)), "cargo test -p engine --lib");
    }
}
