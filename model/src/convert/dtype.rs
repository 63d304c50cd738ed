//! Element types of torch storages, and what they become in a safetensors file.

use auscult_kernels::DType;

/// Element type of a torch storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TorchDType {
    /// `torch.float32`.
    Float,
    /// `torch.float64`, written as F32.
    Double,
    /// `torch.float16`.
    Half,
    /// `torch.bfloat16`.
    BFloat16,
    /// `torch.int64`.
    Long,
    /// `torch.int32`.
    Int,
    /// `torch.int16`, written as I32.
    Short,
    /// `torch.int8`, written as I32.
    Char,
    /// `torch.uint8`.
    Byte,
    /// `torch.bool`, written as U8.
    Bool,
}

const STORAGES: [(&str, TorchDType); 10] = [
    ("FloatStorage", TorchDType::Float),
    ("DoubleStorage", TorchDType::Double),
    ("HalfStorage", TorchDType::Half),
    ("BFloat16Storage", TorchDType::BFloat16),
    ("LongStorage", TorchDType::Long),
    ("IntStorage", TorchDType::Int),
    ("ShortStorage", TorchDType::Short),
    ("CharStorage", TorchDType::Char),
    ("ByteStorage", TorchDType::Byte),
    ("BoolStorage", TorchDType::Bool),
];

impl TorchDType {
    /// The type of the storage class `torch.<name>`.
    pub fn of_storage(name: &str) -> Option<Self> {
        STORAGES.iter().find(|(storage, _)| *storage == name).map(|&(_, dtype)| dtype)
    }

    /// The storage class in module `torch`.
    pub fn storage_name(self) -> &'static str {
        STORAGES.iter().find(|&&(_, dtype)| dtype == self).map_or("", |(storage, _)| storage)
    }

    /// Bytes of one element in the archive.
    pub const fn size(self) -> usize {
        match self {
            Self::Double | Self::Long => 8,
            Self::Float | Self::Int => 4,
            Self::Half | Self::BFloat16 | Self::Short => 2,
            Self::Char | Self::Byte | Self::Bool => 1,
        }
    }

    /// The type it is written as; F64, I16 and I8 have no counterpart in this engine.
    pub const fn written_as(self) -> DType {
        match self {
            Self::Float | Self::Double => DType::F32,
            Self::Half => DType::F16,
            Self::BFloat16 => DType::BF16,
            Self::Long => DType::I64,
            Self::Int | Self::Short | Self::Char => DType::I32,
            Self::Byte | Self::Bool => DType::U8,
        }
    }

    /// Whether the bytes are written as they are.
    pub const fn is_verbatim(self) -> bool {
        self.size() == self.written_as().size()
    }

    /// `bytes` of whole little-endian elements, as [`Self::written_as`].
    pub fn convert(self, bytes: &[u8]) -> Vec<u8> {
        let widen = |value: i32| value.to_le_bytes();
        match self {
            Self::Double => bytes
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
                .flat_map(|value| (value as f32).to_le_bytes()) // rounds to nearest
                .collect(),
            Self::Short => {
                bytes.chunks_exact(2).flat_map(|b| widen(i16::from_le_bytes([b[0], b[1]]).into())).collect()
            }
            Self::Char => bytes.iter().flat_map(|&b| widen(i8::from_le_bytes([b]).into())).collect(),
            _ => bytes.to_vec(),
        }
    }
}
