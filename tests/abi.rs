//! Every kernel's sources agree with its Rust definition. Needs no GPU.
//!
//! WGSL is read through naga, as the executor reads it; PTX, which has no such reader here, line by line. The checkers
//! are held to sources with a fault in each place first.

use auscult_kernels::{Access, DType, KernelInfo, Ptx, REGISTRY, Slot, TensorMap};
use naga::{AddressSpace, Module, Scalar, ScalarKind, StorageAccess, TypeInner};
use std::collections::HashSet;

/// What every WebGPU adapter offers (WebGPU, 3.6.2 limits).
const SLOTS: usize = 8;
const INVOCATIONS: u32 = 256;
const WORKGROUP: [u32; 3] = [256, 256, 64];
const WORKGROUP_STORAGE: u32 = 16_384;
const GROUPS: u32 = 65_535;

fn ensure(is: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if is { Ok(()) } else { Err(what()) }
}

/// The module of a kernel, its `override` constants put in.
fn module(kernel: &KernelInfo) -> Result<Module, String> {
    let source = kernel.wgsl.source;
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    // only what WGSL itself has: what is optional on an adapter is refused
    let capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let info = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|e| e.emit_to_string(source))?;
    for (name, _) in kernel.wgsl.overrides {
        let known = module.overrides.iter().any(|(_, constant)| constant.name.as_deref() == Some(name));
        ensure(known, || format!("the WGSL has no `override {name}`"))?;
    }
    // one kernel a file: what follows drops all other entry points
    let entries: Vec<&str> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
    ensure(entries == [kernel.wgsl.entry], || {
        format!("entry points {entries:?}, expected `{}`", kernel.wgsl.entry)
    })?;
    let constants = kernel.wgsl.overrides.iter().map(|(name, value)| (name.to_string(), *value)).collect();
    let entry = Some((naga::ShaderStage::Compute, kernel.wgsl.entry));
    let (module, _) = naga::back::pipeline_constants::process_overrides(&module, &info, entry, &constants)
        .map_err(|e| e.to_string())?;
    Ok(module.into_owned())
}

fn check_wgsl(kernel: &KernelInfo) -> Result<(), String> {
    let module = module(kernel)?;
    let entry = module.entry_points.first().ok_or("no entry point")?;
    let workgroup = kernel.wgsl.workgroup;
    ensure(entry.workgroup_size == workgroup, || {
        format!("workgroup {:?}, expected {workgroup:?}", entry.workgroup_size)
    })?;

    for (name, _) in kernel.wgsl.overrides {
        let known = module.overrides.iter().any(|(_, value)| value.name.as_deref() == Some(*name));
        ensure(known, || format!("no override `{name}`"))?;
    }

    let mut bound: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| Some((variable.binding?, variable)))
        .collect();
    bound.sort_by_key(|(binding, _)| (binding.group, binding.binding));
    let count = kernel.slots.len() + 1;
    ensure(bound.len() == count, || format!("{} bindings, expected {count}", bound.len()))?;
    for ((number, slot), (binding, variable)) in (0_u32..).zip(kernel.slots).zip(&bound) {
        let place = (binding.group, binding.binding);
        let found = variable.name.as_deref().unwrap_or("");
        ensure(place == (0, number) && found == slot.name, || {
            format!("`{found}` at {place:?}, expected `{}` at (0, {number})", slot.name)
        })?;
        let written = match variable.space {
            AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
            space => return Err(format!("`{found}` is in {space:?}, expected storage")),
        };
        let expected = slot.access != Access::Read;
        ensure(written == expected, || format!("`{found}` is writable: {written}, expected {expected}"))?;
        check_element(&module, variable.ty, slot)?;
    }
    let (binding, params) = bound.last().ok_or("no bindings")?;
    let uniform =
        params.space == AddressSpace::Uniform && (binding.group, binding.binding) == (0, count as u32 - 1);
    ensure(uniform, || "the last binding is not a uniform".into())?;
    check_params(&module, params.ty, kernel)
}

/// A slot is an array of its element type, of vectors of it, or of words that pack it.
fn check_element(module: &Module, ty: naga::Handle<naga::Type>, slot: &Slot) -> Result<(), String> {
    let TypeInner::Array { base, .. } = module.types[ty].inner else {
        return Err(format!("`{}` is no array", slot.name));
    };
    let scalar = match module.types[base].inner {
        TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } | TypeInner::Atomic(scalar) => scalar,
        ref other => return Err(format!("`{}` holds {other:?}", slot.name)),
    };
    let expected: &[ScalarKind] = match slot.dtype {
        // words, where one source serves several types or only moves bits
        DType::F32 => &[ScalarKind::Float, ScalarKind::Uint],
        DType::I32 => &[ScalarKind::Sint],
        DType::U32 | DType::F16 | DType::BF16 | DType::U8 | DType::U16 | DType::I64 => &[ScalarKind::Uint],
    };
    let Scalar { kind, width } = scalar;
    ensure(width == 4 && expected.contains(&kind), || {
        format!(
            "`{}` holds {kind:?} of {width} bytes, expected {expected:?} of 4 for {}",
            slot.name, slot.dtype
        )
    })
}

fn check_params(module: &Module, ty: naga::Handle<naga::Type>, kernel: &KernelInfo) -> Result<(), String> {
    let TypeInner::Struct { members, span } = &module.types[ty].inner else {
        return Err("the parameter block is no struct".into());
    };
    let size = kernel.params_size;
    ensure(*span as usize == size && size.is_multiple_of(16), || {
        format!("{span} bytes of parameters, not {size}")
    })?;
    for field in kernel.fields {
        let member = members.iter().find(|m| m.name.as_deref() == Some(field.name));
        let offset = member.map(|m| m.offset as usize);
        ensure(offset == Some(field.offset), || {
            format!("`params.{}` at {offset:?}, expected {}", field.name, field.offset)
        })?;
    }
    for member in members {
        let name = member.name.as_deref().unwrap_or("");
        let known = name.starts_with("pad") || kernel.fields.iter().any(|field| field.name == name);
        ensure(known, || format!("`params.{name}` is no field of the definition"))?;
    }
    Ok(())
}

/// Within what every adapter offers, at every case.
fn check_limits(kernel: &KernelInfo) -> Result<(), String> {
    let module = module(kernel)?;
    let slots = kernel.slots.len();
    ensure(slots <= SLOTS, || format!("{slots} slots, expected at most {SLOTS}"))?;
    let workgroup = kernel.wgsl.workgroup;
    let fits = workgroup.iter().zip(WORKGROUP).all(|(&extent, limit)| (1..=limit).contains(&extent));
    ensure(fits && workgroup.iter().product::<u32>() <= INVOCATIONS, || {
        format!("workgroup {workgroup:?}, expected at most {INVOCATIONS} invocations")
    })?;
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
    // each starts at a multiple of 16
    let bytes: u32 =
        shared.map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx()).next_multiple_of(16)).sum();
    ensure(bytes <= WORKGROUP_STORAGE, || {
        format!("{bytes} bytes shared, expected at most {WORKGROUP_STORAGE}")
    })?;
    for case in (kernel.cases)() {
        let grid = (kernel.wgsl.grid)(&case.plan.params);
        ensure(grid.iter().all(|&groups| groups <= GROUPS), || {
            format!("case `{}`: grid {grid:?}", case.why)
        })?;
        ensure(grid.iter().all(|&groups| groups > 0) || case.plan.is_empty(), || {
            format!("case `{}`: grid {grid:?} runs nothing", case.why)
        })?;
        let length = case.plan.params.len();
        ensure(length == kernel.params_size, || {
            format!("case `{}`: {length} bytes of parameters", case.why)
        })?;
    }
    Ok(())
}

/// The comment that opens a source: its sections in order, every slot, every field with its offset.
fn check_header(kernel: &KernelInfo, entry: &str, source: &str) -> Result<(), String> {
    let header: Vec<&str> = source.lines().map_while(|line| line.strip_prefix("//")).map(str::trim).collect();
    let title = format!("{entry}:");
    let first = header.first().copied().unwrap_or("");
    ensure(first.starts_with(&title), || format!("the header opens with `{first}`, expected `{title} ...`"))?;
    let section = |line: &&str| {
        ["slots", "params", "launch", "shared", "cost", "numerics"]
            .into_iter()
            .find(|word| line.split_whitespace().next() == Some(word))
    };
    let mut sections: Vec<&str> = header.iter().filter_map(section).collect();
    sections.dedup();
    let expected = ["slots", "params", "launch", "shared", "cost", "numerics"];
    ensure(sections == expected, || format!("sections {sections:?} in the header, expected {expected:?}"))?;
    let begins = |word: &'static str| move |line: &&&str| line.split_whitespace().next() != Some(word);
    let told = header.iter().skip_while(begins("slots")).take_while(begins("params"));
    let told: Vec<&str> = told.flat_map(|line| line.split_whitespace()).collect();
    for slot in kernel.slots {
        ensure(told.contains(&slot.name), || format!("the header does not tell of slot `{}`", slot.name))?;
    }
    let words: Vec<&str> = header.iter().flat_map(|line| line.split_whitespace()).collect();
    for field in kernel.fields {
        let at = format!("@{}", field.offset);
        let told = words.windows(3).any(|w| w[0] == field.name && w[2].trim_end_matches(',') == at);
        ensure(told, || format!("the header does not tell of `{} <type> {at}`", field.name))?;
    }
    Ok(())
}

/// Entry, parameter list, block size; and that each register loaded from a parameter has the parameter's name, so that
/// a swapped pair shows.
fn check_ptx(kernel: &KernelInfo, ptx: &Ptx) -> Result<(), String> {
    let source = ptx.source;
    let target = format!(".target {}\n", ptx.target.name());
    ensure(source.contains(&target), || format!("no `{}`", target.trim_end()))?;
    let opening = format!(".entry {}(", ptx.entry);
    let (_, after) = source.split_once(&opening).ok_or_else(|| format!("no `{opening}`"))?;
    let (args, body) = after.split_once(')').ok_or("the parameter list does not end")?;
    let args: Vec<&str> = args.split(',').map(str::trim).collect();
    let mut expected: Vec<String> =
        kernel.slots.iter().map(|slot| format!(".param .u64 {}", slot.name)).collect();
    expected.push(format!(".param .align 4 .b8 params[{}]", kernel.params_size));
    expected.extend(ptx.workspace.map(|_| ".param .u64 workspace".to_string()));
    let maps = (kernel.cases)().iter().map(|case| (ptx.maps)(&case.plan.params)).next().unwrap_or_default();
    let map = |m: &TensorMap| format!(".param .align 64 .b8 {}_map[128]", kernel.slots[m.slot].name);
    expected.extend(maps.iter().map(map));
    ensure(args == expected, || format!("parameters {args:?}, expected {expected:?}"))?;
    let block = ptx.block;
    let reqntid = format!(".reqntid {}, {}, {}", block[0], block[1], block[2]);
    ensure(body.trim_start().starts_with(&reqntid), || format!("no `{reqntid}` after the parameters"))?;
    let loads: HashSet<(&str, &str)> = body
        .lines()
        .filter_map(|line| {
            let (_, operands) = line.trim().strip_prefix("ld.param.")?.split_once(char::is_whitespace)?;
            let (register, from) = operands.split_once(',')?;
            Some((register.trim(), from.trim().trim_end_matches(';')))
        })
        .collect();
    for slot in kernel.slots {
        let (register, from) = (format!("{}_ptr", slot.name), format!("[{}]", slot.name));
        ensure(loads.contains(&(&*register, &*from)), || format!("no load of `{register}` from `{from}`"))?;
    }
    for field in kernel.fields {
        let from = format!("[params + {}]", field.offset);
        ensure(loads.contains(&(field.name, &*from)), || {
            format!("no load of `{}` from `{from}`", field.name)
        })?;
    }
    Ok(())
}

/// Fails with every kernel that a check refuses.
fn all(check: impl Fn(&KernelInfo) -> Result<(), String>) {
    let refused: Vec<String> = REGISTRY
        .iter()
        .filter_map(|kernel| Some(format!("{}: {}", kernel.name, check(kernel).err()?)))
        .collect();
    assert!(refused.is_empty(), "\n{}", refused.join("\n"));
}

#[test]
fn wgsl_matches_definition() {
    all(check_wgsl);
}

#[test]
fn wgsl_needs_only_what_every_adapter_has() {
    all(check_limits);
}

#[test]
fn headers_match_definition() {
    all(|kernel| {
        check_header(kernel, kernel.wgsl.entry, kernel.wgsl.source)?;
        kernel.ptx.iter().try_for_each(|ptx| check_header(kernel, ptx.entry, ptx.source))
    });
}

#[test]
fn ptx_matches_definition() {
    let without: Vec<&str> = REGISTRY.iter().filter(|k| k.ptx.is_empty()).map(|k| k.name).collect();
    println!("{} of {} kernels have no PTX: {}", without.len(), REGISTRY.len(), without.join(", "));
    all(|kernel| {
        kernel
            .ptx
            .iter()
            .try_for_each(|ptx| check_ptx(kernel, ptx).map_err(|message| format!("{}: {message}", ptx.entry)))
    });
}

#[test]
fn names_are_told_apart() {
    let names: HashSet<&str> = REGISTRY.iter().map(|kernel| kernel.name).collect();
    assert_eq!(names.len(), REGISTRY.len(), "two kernels of one name");
    for kernel in REGISTRY {
        let slots: HashSet<&str> = kernel.slots.iter().map(|slot| slot.name).collect();
        assert_eq!(slots.len(), kernel.slots.len(), "{}: two slots of one name", kernel.name);
        let whys: HashSet<&str> = (kernel.cases)().iter().map(|case| case.why).collect();
        assert_eq!(whys.len(), (kernel.cases)().len(), "{}: two cases of one reason", kernel.name);
    }
}

mod checkers {
    //! The checkers, on a kernel that is right and on ones with a fault each.

    use super::*;
    use auscult_kernels::{Field, Wgsl};

    const WGSL: &str = "\
// scale_f32: y = factor * x, n elements.
//
// slots    x  f32 [n]  read
//          y  f32 [n]  write
// params   n u32 @0   factor f32 @4   pad @8, @12   16 bytes
// launch   grid ceil(n / 64)   workgroup (64, 1, 1)
// shared   none
// cost     bytes 8 * n   flops n
// numerics one product

struct Params { n: u32, factor: f32, pad0: u32, pad1: u32 }
override BLOCK: u32;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;
var<workgroup> room: array<f32, 64>;
@compute @workgroup_size(BLOCK)
fn scale_f32(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    room[lane] = 1.0;
    if id.x < params.n { y[id.x] = params.factor * f32(x[id.x]) * room[lane]; }
}
";

    const PTX: &str = "\
.version 7.0
.target sm_80
.address_size 64
.visible .entry scale_f32(
    .param .u64 x,
    .param .u64 y,
    .param .align 4 .b8 params[16]
)
.reqntid 64, 1, 1
{
    ld.param.u64    x_ptr, [x];
    ld.param.u64    y_ptr, [y];
    ld.param.u32    n, [params + 0];
    ld.param.f32    factor, [params + 4];
}
";

    const SLOTS: &[Slot] = &[Slot::read("x", DType::F32), Slot::write("y", DType::F32)];
    const FIELDS: &[Field] = &[Field { name: "n", offset: 0 }, Field { name: "factor", offset: 4 }];

    fn kernel(source: String) -> KernelInfo {
        KernelInfo {
            name: "scale_f32",
            slots: SLOTS,
            fields: FIELDS,
            params_size: 16,
            wgsl: Wgsl {
                source: source.leak(),
                entry: "scale_f32",
                overrides: &[("BLOCK", 64.0)],
                workgroup: [64, 1, 1],
                grid: |_| [1, 1, 1],
            },
            ptx: &[],
            reference: |_, _| {},
            cpu: None,
            cases: Vec::new,
        }
    }

    /// Each fault, made by a replacement, is refused with a message that has the words expected.
    fn refuses(text: &str, check: impl Fn(String) -> Result<(), String>, faults: &[(&str, &str, &str)]) {
        check(text.to_string()).expect("the text without a fault");
        let mut missed = Vec::new();
        for (from, to, expected) in faults {
            let faulty = text.replace(from, to);
            assert_ne!(faulty, text, "`{from}` is not there");
            let said = check(faulty).err().unwrap_or_default();
            if !said.contains(expected) {
                missed.push(format!("`{from}` made `{to}`: said `{said}`, expected `{expected}`"));
            }
        }
        assert!(missed.is_empty(), "{}", missed.join("\n"));
    }

    #[test]
    fn wgsl() {
        refuses(
            WGSL,
            |text| check_wgsl(&kernel(text)),
            &[
                ("fn scale_f32", "fn scale", "entry points [\"scale\"]"),
                ("size(BLOCK)", "size(BLOCK * 2)", "workgroup [128, 1, 1]"),
                ("override BLOCK: u32", "const BLOCK: u32 = 64", "no `override BLOCK`"),
                ("binding(0) var<storage, read> x", "binding(0) var<storage, read> z", "no definition"),
                ("binding(0)", "binding(3)", "expected `x` at (0, 0)"),
                ("storage, read_write", "storage, read", "not permitted"),
                ("storage, read> x", "storage, read_write> x", "`x` is writable"),
                ("x: array<f32>", "x: array<i32>", "`x` holds Sint of 4 bytes"),
                ("{ n: u32, factor: f32,", "{ factor: f32, n: u32,", "`params.n` at Some(4)"),
                (", pad1: u32", "", "bytes of parameters"),
                ("pad0", "spare", "`params.spare`"),
            ],
        );
    }

    #[test]
    fn limits() {
        refuses(
            WGSL,
            |text| check_limits(&kernel(text)),
            &[("f32, 64>", "f32, 4097>", "bytes shared"), ("x: array<f32>", "x: array<f16>", "f16")],
        );
    }

    #[test]
    fn header() {
        refuses(
            WGSL,
            |text| check_header(&kernel(WGSL.to_string()), "scale_f32", &text),
            &[
                ("// scale_f32:", "// scale:", "opens with"),
                ("// cost ", "// price ", "sections"),
                ("//          y ", "//          z ", "slot `y`"),
                ("@4", "@8", "`factor <type> @4`"),
            ],
        );
    }

    #[test]
    fn ptx() {
        refuses(
            PTX,
            |text| {
                let form = Ptx::new(text.leak(), "scale_f32", [64, 1, 1], |_, _| [1, 1, 1]);
                check_ptx(&kernel(WGSL.to_string()), &form)
            },
            &[
                (".target sm_80", ".target sm_90", "no `.target sm_80`"),
                (".entry scale_f32", ".entry scale", "no `.entry"),
                (".u64 x,", ".u64 z,", "parameters"),
                ("params[16]", "params[12]", "parameters"),
                (".reqntid 64", ".reqntid 32", "reqntid"),
                ("x_ptr, [x]", "x_ptr, [y]", "`x_ptr`"),
                ("n, [params + 0]", "n, [params + 4]", "`n`"),
                ("factor, [params + 4]", "n, [params + 4]", "`factor`"),
            ],
        );
    }
}
