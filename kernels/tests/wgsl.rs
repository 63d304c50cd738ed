//! Every kernel's WGSL agrees with its Rust definition. Needs no GPU.

use auscult_kernels::{Access, DType, KernelInfo, REGISTRY};
use naga::{
    AddressSpace, Module, StorageAccess, TypeInner, valid::Capabilities, valid::ValidationFlags,
    valid::Validator,
};

/// What WebGPU grants on every adapter.
const MAX_INVOCATIONS: u32 = 256;
const MAX_WORKGROUP_BYTES: u32 = 16_384;
const MAX_STORAGE_BINDINGS: usize = 8;

fn module(kernel: &KernelInfo) -> Module {
    let source = kernel.wgsl.source;
    naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{}: {}", kernel.name, error.emit_to_string(source)))
}

#[test]
fn sources_are_legal_without_any_feature() {
    for kernel in REGISTRY {
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
        let valid = validator.validate(&module(kernel));
        assert!(
            valid.is_ok(),
            "{}: {}",
            kernel.name,
            valid.expect_err("checked").emit_to_string(kernel.wgsl.source)
        );
    }
}

#[test]
fn entries_and_workgroups_are_as_declared() {
    for kernel in REGISTRY {
        let module = module(kernel);
        let [entry] = module.entry_points.as_slice() else {
            panic!("{}: one entry point a file", kernel.name)
        };
        assert_eq!(entry.name, kernel.wgsl.entry, "{}: entry", kernel.name);
        assert_eq!(entry.workgroup_size, kernel.wgsl.workgroup, "{}: workgroup size", kernel.name);
        assert!(
            kernel.wgsl.workgroup.iter().product::<u32>() <= MAX_INVOCATIONS,
            "{}: invocations",
            kernel.name
        );
        for (name, _) in kernel.wgsl.overrides {
            let known = module.overrides.iter().any(|(_, value)| value.name.as_deref() == Some(*name));
            assert!(known, "{}: no override `{name}`", kernel.name);
        }
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).expect("types of a valid module");
        let shared = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
        let bytes: u32 = shared.map(|(_, v)| layouter[v.ty].size).sum();
        assert!(bytes <= MAX_WORKGROUP_BYTES, "{}: {bytes} bytes of workgroup memory", kernel.name);
    }
}

#[test]
fn bindings_follow_the_slots() {
    for kernel in REGISTRY {
        let module = module(kernel);
        let bound = module.global_variables.iter().filter_map(|(_, v)| Some((v.binding.as_ref()?, v)));
        let mut bound: Vec<_> = bound.collect();
        bound.sort_by_key(|(binding, _)| binding.binding);
        assert_eq!(bound.len(), kernel.slots.len() + 1, "{}: bindings", kernel.name);
        assert!(kernel.slots.len() <= MAX_STORAGE_BINDINGS, "{}: storage bindings", kernel.name);
        for (number, (binding, variable)) in bound.iter().enumerate() {
            assert_eq!(
                (binding.group, binding.binding as usize),
                (0, number),
                "{}: binding numbers",
                kernel.name
            );
            let name = variable.name.as_deref().expect("globals have names");
            let Some(slot) = kernel.slots.get(number) else {
                assert_eq!(name, "params", "{}: the parameter block is bound last", kernel.name);
                assert_eq!(
                    variable.space,
                    AddressSpace::Uniform,
                    "{}: the parameter block is a uniform",
                    kernel.name
                );
                continue;
            };
            assert_eq!(name, slot.name, "{}: order of bindings", kernel.name);
            let AddressSpace::Storage { access } = variable.space else {
                panic!("{}: `{name}` is not a storage buffer", kernel.name)
            };
            let written = slot.access != Access::Read;
            assert_eq!(access.contains(StorageAccess::STORE), written, "{}: access of `{name}`", kernel.name);
            let TypeInner::Array { base, .. } = module.types[variable.ty].inner else {
                panic!("{}: `{name}` is not an array", kernel.name)
            };
            let (kind, width) = match module.types[base].inner {
                TypeInner::Scalar(scalar) => (scalar.kind, scalar.width),
                TypeInner::Vector { scalar, .. } => (scalar.kind, scalar.width),
                ref other => panic!("{}: `{name}` holds {other:?}", kernel.name),
            };
            // words may be read as bits, never as another kind of number
            let fits = match slot.dtype {
                DType::F32 => matches!(kind, naga::ScalarKind::Float | naga::ScalarKind::Uint),
                _ => kind == naga::ScalarKind::Uint,
            };
            assert!(
                fits && width == 4,
                "{}: `{name}` is {kind:?} of {width} bytes for {}",
                kernel.name,
                slot.dtype
            );
        }
    }
}

#[test]
fn parameter_blocks_have_the_same_layout() {
    for kernel in REGISTRY {
        let module = module(kernel);
        let uniforms = module.global_variables.iter().find(|(_, v)| v.space == AddressSpace::Uniform);
        let (_, variable) = uniforms.unwrap_or_else(|| panic!("{}: no parameter block", kernel.name));
        let TypeInner::Struct { members, span } = &module.types[variable.ty].inner else {
            panic!("{}: the parameter block is not a struct", kernel.name)
        };
        assert_eq!(*span as usize, kernel.params_size, "{}: size of the parameter block", kernel.name);
        assert_eq!(kernel.params_size % 16, 0, "{}: uniforms end on 16 bytes", kernel.name);
        for field in kernel.fields {
            let member = members.iter().find(|m| m.name.as_deref() == Some(field.name));
            let member = member.unwrap_or_else(|| panic!("{}: no parameter `{}`", kernel.name, field.name));
            assert_eq!(member.offset as usize, field.offset, "{}: offset of `{}`", kernel.name, field.name);
        }
        let padding = |name: &str| {
            name.strip_prefix("pad").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'_'))
        };
        let named = members.iter().filter(|m| !m.name.as_deref().is_some_and(padding));
        assert_eq!(named.count(), kernel.fields.len(), "{}: parameters besides padding", kernel.name);
    }
}

#[test]
fn grids_stay_within_the_limit_of_webgpu() {
    for kernel in REGISTRY {
        for case in (kernel.cases)() {
            let grid = (kernel.wgsl.grid)(&case.plan.params);
            assert!(grid.iter().all(|&n| n <= 65_535), "{} ({}): {grid:?}", case.plan, case.why);
            let runs = grid.iter().all(|&n| n > 0);
            assert!(runs || case.plan.is_empty(), "{} ({}): nothing would run", case.plan, case.why);
        }
    }
}

#[test]
fn headers_say_what_a_reader_needs() {
    for kernel in REGISTRY {
        let source = kernel.wgsl.source;
        assert!(source.starts_with(&format!("// {}: ", kernel.wgsl.entry)), "{}: first line", kernel.name);
        for word in ["slots", "params", "launch", "shared", "cost", "numerics"] {
            assert!(source.contains(&format!("\n// {word} ")), "{}: header has no `{word}`", kernel.name);
        }
    }
}
