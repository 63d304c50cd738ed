//! Every kernel's sources agree with its Rust definition. Needs no GPU.
//!
//! WGSL is read through naga, as the executor reads it; PTX, which has no such reader here, line by line. The checkers
//! are held to sources with a fault in each place first.

use auscult_kernels::{Access, DType, KernelInfo, Ptx, REGISTRY, Slot, TensorMap, Wgsl, WgslNeeds};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
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

/// What the adapters that run a form offer: where it needs nothing, only what WGSL itself has.
fn capabilities(form: &Wgsl) -> Capabilities {
    let always = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    match form.needs {
        WgslNeeds::Nothing => always,
        WgslNeeds::HalfMatrices16 => {
            always | Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP | Capabilities::COOPERATIVE_MATRIX
        }
    }
}

/// The module of a form, its `override` constants put in, and what its validation found.
fn module(form: &Wgsl) -> Result<(Module, ModuleInfo), String> {
    let source = form.source;
    let mut front = naga::front::wgsl::Frontend::new_with_options(naga::front::wgsl::Options {
        capabilities: capabilities(form),
        ..naga::front::wgsl::Options::new()
    });
    let module = front.parse(source).map_err(|e| e.emit_to_string(source))?;
    let info = Validator::new(ValidationFlags::all(), capabilities(form))
        .validate(&module)
        .map_err(|e| e.emit_to_string(source))?;
    for (name, _) in form.overrides {
        let known = module.overrides.iter().any(|(_, constant)| constant.name.as_deref() == Some(name));
        ensure(known, || format!("the WGSL has no `override {name}`"))?;
    }
    // one kernel a file: what follows drops all other entry points
    let entries: Vec<&str> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
    ensure(entries == [form.entry], || format!("entry points {entries:?}, expected `{}`", form.entry))?;
    let constants = form.overrides.iter().map(|(name, value)| (name.to_string(), *value)).collect();
    let entry = Some((naga::ShaderStage::Compute, form.entry));
    let (module, info) = naga::back::pipeline_constants::process_overrides(&module, &info, entry, &constants)
        .map_err(|e| e.to_string())?;
    Ok((module.into_owned(), info.into_owned()))
}

fn check_wgsl(kernel: &KernelInfo, form: &Wgsl) -> Result<(), String> {
    let (module, _) = module(form)?;
    let entry = module.entry_points.first().ok_or("no entry point")?;
    let workgroup = form.workgroup;
    ensure(entry.workgroup_size == workgroup, || {
        format!("workgroup {:?}, expected {workgroup:?}", entry.workgroup_size)
    })?;

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
        check_element(&module, variable.ty, slot, form.needs)?;
    }
    let (binding, params) = bound.last().ok_or("no bindings")?;
    let uniform =
        params.space == AddressSpace::Uniform && (binding.group, binding.binding) == (0, count as u32 - 1);
    ensure(uniform, || "the last binding is not a uniform".into())?;
    check_params(&module, params.ty, kernel)
}

/// A slot is an array of its element type, of vectors of it, or of words that pack it.
fn check_element(
    module: &Module,
    ty: naga::Handle<naga::Type>,
    slot: &Slot,
    needs: WgslNeeds,
) -> Result<(), String> {
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
    if needs == WgslNeeds::HalfMatrices16 && slot.dtype == DType::F16 && scalar == Scalar::F16 {
        return Ok(());
    }
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

/// Within what every adapter offers, or what the form needs, at every case that it takes.
fn check_limits(kernel: &KernelInfo, form: &Wgsl) -> Result<(), String> {
    let (module, _) = module(form)?;
    let slots = kernel.slots.len();
    ensure(slots <= SLOTS, || format!("{slots} slots, expected at most {SLOTS}"))?;
    let workgroup = form.workgroup;
    let fits = workgroup.iter().zip(WORKGROUP).all(|(&extent, limit)| (1..=limit).contains(&extent));
    ensure(fits && workgroup.iter().product::<u32>() <= INVOCATIONS, || {
        format!("workgroup {workgroup:?}, expected at most {INVOCATIONS} invocations")
    })?;
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
    // each starts at a multiple of 16
    let bytes: u32 =
        shared.map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx()).next_multiple_of(16)).sum();
    let most = match form.needs {
        WgslNeeds::Nothing => WORKGROUP_STORAGE,
        WgslNeeds::HalfMatrices16 => WgslNeeds::SHARED,
    };
    ensure(bytes <= most, || format!("{bytes} bytes shared, expected at most {most}"))?;
    let mut taken = 0;
    for case in (kernel.cases)() {
        if !(form.takes)(&case.plan.params) {
            continue;
        }
        taken += 1;
        let grid = (form.grid)(&case.plan.params);
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
    let cases = (kernel.cases)().len();
    ensure(taken > 0 || cases == 0, || "takes none of the cases".into())
}

/// Some form takes every launch on every adapter: the last, and only it, since none behind it would ever run.
fn check_forms(kernel: &KernelInfo) -> Result<(), String> {
    let everywhere = |form: &Wgsl| {
        let takes = (kernel.cases)().iter().all(|case| (form.takes)(&case.plan.params));
        form.needs == WgslNeeds::Nothing && takes
    };
    let (last, others) = kernel.wgsl.split_last().ok_or("no WGSL form")?;
    ensure(everywhere(last), || format!("`{}` is the last form, but does not run everywhere", last.entry))?;
    let hides = others.iter().find(|form| everywhere(form));
    ensure(hides.is_none(), || "a form that runs everywhere is not the last".into())?;
    let entries: HashSet<&str> = kernel.wgsl.iter().map(|form| form.entry).collect();
    ensure(entries.len() == kernel.wgsl.len(), || "two forms of one entry".into())
}

/// The form as the Vulkan driver gets it: what it may use there, SPIR-V has words for.
fn check_spirv(form: &Wgsl) -> Result<(), String> {
    use naga::back::spv;
    let (module, info) = module(form)?;
    let options = spv::Options { lang_version: (1, 6), ..Default::default() };
    let pipeline =
        spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: form.entry.into() };
    let words = spv::write_vec(&module, &info, &options, Some(&pipeline)).map_err(|e| e.to_string())?;
    // SPIR-V, 2.3 physical layout: its number, then after five words instructions with their length above their number
    ensure(words.first() == Some(&0x0723_0203), || "no SPIR-V came out".into())?;
    let mut opcodes = HashSet::new();
    let mut at = 5;
    while let Some(word) = words.get(at) {
        opcodes.insert(word & 0xffff);
        at += (word >> 16).max(1) as usize;
    }
    // SPV_KHR_cooperative_matrix: OpTypeCooperativeMatrixKHR, load, store, multiply and add
    let matrices = [4456, 4457, 4458, 4459].map(|opcode| opcodes.contains(&opcode));
    let expected = [form.needs == WgslNeeds::HalfMatrices16; 4];
    ensure(matrices == expected, || format!("matrix instructions {matrices:?}, expected {expected:?}"))
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

/// The same for every WGSL form, by its entry.
fn all_wgsl(check: impl Fn(&KernelInfo, &Wgsl) -> Result<(), String>) {
    all(|kernel| {
        let named = |form: &Wgsl| check(kernel, form).map_err(|message| format!("{}: {message}", form.entry));
        kernel.wgsl.iter().try_for_each(named)
    });
}

#[test]
fn wgsl_matches_definition() {
    all_wgsl(check_wgsl);
}

#[test]
fn wgsl_needs_only_what_its_adapters_have() {
    all_wgsl(check_limits);
}

#[test]
fn the_last_wgsl_form_runs_everywhere() {
    all(check_forms);
}

#[test]
fn wgsl_becomes_spirv() {
    all_wgsl(|_, form| check_spirv(form));
}

#[test]
fn headers_match_definition() {
    all(|kernel| {
        kernel.wgsl.iter().try_for_each(|form| check_header(kernel, form.entry, form.source))?;
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
    use auscult_kernels::Field;

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

    fn form(source: String) -> Wgsl {
        Wgsl {
            overrides: &[("BLOCK", 64.0)],
            ..Wgsl::new(source.leak(), "scale_f32", [64, 1, 1], |_| [1, 1, 1])
        }
    }

    fn kernel(wgsl: Vec<Wgsl>) -> KernelInfo {
        KernelInfo {
            name: "scale_f32",
            slots: SLOTS,
            fields: FIELDS,
            params_size: 16,
            wgsl: wgsl.leak(),
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
            |text| check_wgsl(&kernel(vec![]), &form(text)),
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
            |text| check_limits(&kernel(vec![]), &form(text)),
            &[("f32, 64>", "f32, 4097>", "bytes shared"), ("x: array<f32>", "x: array<f16>", "f16")],
        );
    }

    #[test]
    fn forms() {
        let matrices = |source: &str| Wgsl { needs: WgslNeeds::HalfMatrices16, ..form(source.into()) };
        let other = |source: &str| Wgsl { entry: "other", ..matrices(source) };
        let said = |wgsl: Vec<Wgsl>| check_forms(&kernel(wgsl)).err().unwrap_or_default();
        assert_eq!(said(vec![other(WGSL), form(WGSL.into())]), "");
        assert!(said(vec![]).contains("no WGSL form"));
        assert!(said(vec![matrices(WGSL)]).contains("does not run everywhere"));
        assert!(
            said(vec![form(WGSL.into()), Wgsl { entry: "other", ..form(WGSL.into()) }])
                .contains("is not the last")
        );
        assert!(said(vec![matrices(WGSL), form(WGSL.into())]).contains("two forms of one entry"));
        // what a form needs widens what it may use, and must be used
        let halves = WGSL.replace("x: array<f32>", "x: array<f16>");
        let halves = format!("enable f16;\n{halves}");
        let refused = module(&form(halves.clone())).err().unwrap_or_default();
        assert!(refused.contains("f16"), "{refused}");
        module(&matrices(&halves)).expect("f16 where it is needed");
        let unused = check_spirv(&matrices(WGSL)).err().unwrap_or_default();
        assert!(unused.contains("matrix instructions"), "{unused}");
        check_spirv(&form(WGSL.into())).expect("a form without matrices");
    }

    #[test]
    fn header() {
        refuses(
            WGSL,
            |text| check_header(&kernel(vec![]), "scale_f32", &text),
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
                check_ptx(&kernel(vec![]), &form)
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
