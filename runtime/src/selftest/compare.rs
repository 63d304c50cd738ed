//! The comparator: non-finite first, then element by element, written so that NaN cannot pass.

use auscult_kernels::{DType, TensorDesc, Tolerance};
use half::{bf16, f16};

/// Relative tolerances above this accept anything.
const CEILING: f64 = 1e-2;

/// Holds `got` to `want` element by element, `abs + rel * |want|`, both as bytes of a tensor of `desc`. Returns the largest
/// difference.
///
/// # Errors
/// The message names the first element that differs,
/// the worst, and how many do.
pub fn compare(desc: &TensorDesc, got: &[u8], want: &[u8], tolerance: &Tolerance) -> Result<f64, String> {
    let Tolerance { abs, rel, why } = *tolerance;
    if !((0.0..=CEILING).contains(&rel) && (0.0..f64::INFINITY).contains(&abs)) {
        return Err(format!("tolerance abs {abs:e}, rel {rel:e} is refused: rel is at most {CEILING:e}"));
    }
    check_lengths(desc, got, want)?;
    let size = desc.dtype.size();
    let mut first = None;
    let mut worst = (0.0, 0);
    let mut largest = 0.0_f64;
    let mut count = 0;
    for (i, (g, w)) in got.chunks_exact(size).zip(want.chunks_exact(size)).enumerate() {
        if is_float(desc.dtype) && w.iter().all(|&byte| byte == 0xff) {
            return Err(format!("the reference leaves {} unwritten", at(desc, i)));
        }
        let (g, w) = (value(desc.dtype, g), value(desc.dtype, w));
        let error = (g - w).abs();
        let agrees = if w.is_finite() && g.is_finite() {
            largest = largest.max(error);
            // NaN in the bound would make this false
            error <= abs + rel * w.abs()
        } else {
            g == w || (g.is_nan() && w.is_nan())
        };
        if !agrees {
            count += 1;
            first.get_or_insert((i, g, w));
            // a value that is not finite is as wrong as can be
            let error = if error.is_finite() { error } else { f64::INFINITY };
            if error > worst.0 {
                worst = (error, i);
            }
        }
    }
    let Some((i, got, want)) = first else { return Ok(largest) };
    let elements = desc.elements();
    Err(format!(
        "{count} of {elements} elements differ by more than {abs:e} + {rel:e} * |want| ({why}); first {}: got {got:e}, \
         want {want:e}; worst {}: off by {:e}",
        at(desc, i),
        at(desc, worst.1),
        worst.0,
    ))
}

/// Holds `got` to `want` bit for bit.
pub fn same_bits(desc: &TensorDesc, got: &[u8], want: &[u8]) -> Result<(), String> {
    check_lengths(desc, got, want)?;
    let size = desc.dtype.size();
    let differs = |(g, w): (&[u8], &[u8])| g != w;
    let Some(i) = got.chunks_exact(size).zip(want.chunks_exact(size)).position(differs) else {
        return Ok(());
    };
    let read = |bytes: &[u8]| value(desc.dtype, &bytes[i * size..(i + 1) * size]);
    let hex = |bytes: &[u8]| {
        bytes[i * size..(i + 1) * size].iter().rev().map(|b| format!("{b:02x}")).collect::<String>()
    };
    let (g, w) = (read(got), read(want));
    Err(format!("{}: got {g:e} (0x{}), want {w:e} (0x{})", at(desc, i), hex(got), hex(want)))
}

fn check_lengths(desc: &TensorDesc, got: &[u8], want: &[u8]) -> Result<(), String> {
    let bytes = desc.bytes();
    if got.len() == bytes && want.len() == bytes {
        return Ok(());
    }
    Err(format!("got {} bytes, want {}, expected {bytes} for {desc}", got.len(), want.len()))
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// An element as f64; whole numbers of 64 bits keep 53.
fn value(dtype: DType, bytes: &[u8]) -> f64 {
    use bytemuck::pod_read_unaligned as read;
    match dtype {
        DType::F32 => f64::from(read::<f32>(bytes)),
        DType::F16 => read::<f16>(bytes).to_f64(),
        DType::BF16 => read::<bf16>(bytes).to_f64(),
        DType::U8 => f64::from(bytes[0]),
        DType::U16 => f64::from(read::<u16>(bytes)),
        DType::U32 => f64::from(read::<u32>(bytes)),
        DType::I32 => f64::from(read::<i32>(bytes)),
        DType::I64 => read::<i64>(bytes) as f64,
    }
}

/// `element 7 [1, 2]`.
fn at(desc: &TensorDesc, element: usize) -> String {
    let mut rest = element;
    let mut coordinates: Vec<usize> = desc
        .shape
        .iter()
        .rev()
        .map(|&extent| {
            let coordinate = rest % extent;
            rest /= extent;
            coordinate
        })
        .collect();
    coordinates.reverse();
    format!("element {element} {coordinates:?}")
}
