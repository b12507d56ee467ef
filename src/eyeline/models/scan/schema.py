"""What an ONNX file may say: the fields of every message of onnx.proto, by number.

From onnx.proto of ONNX 1.23 (a test holds the tables to the installed `onnx`). A field that is not
here is one that ONNX Runtime and the scanner could read differently, so it is refused.
"""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        name: as in onnx.proto.
        kind: `i32`, `i64`, `u64`, `f32`, `f64`, `str`, `bytes`, or the name of a message.
        repeated: whether it may stand there more than once.
    """

    name: str
    kind: str
    repeated: bool


_TABLES = {
    "Model": """1 ir_version i64, 2 producer_name str, 3 producer_version str, 4 domain str,
        5 model_version i64, 6 doc_string str, 7 graph Graph, 8 opset_import* OperatorSetId,
        14 metadata_props* StringStringEntry, 20 training_info* TrainingInfo,
        25 functions* Function, 26 configuration* DeviceConfiguration""",
    "OperatorSetId": "1 domain str, 2 version i64",
    "Graph": """1 node* Node, 2 name str, 5 initializer* Tensor, 10 doc_string str,
        11 input* ValueInfo, 12 output* ValueInfo, 13 value_info* ValueInfo,
        14 quantization_annotation* TensorAnnotation, 15 sparse_initializer* SparseTensor,
        16 metadata_props* StringStringEntry""",
    "Node": """1 input* str, 2 output* str, 3 name str, 4 op_type str, 5 attribute* Attribute,
        6 doc_string str, 7 domain str, 8 overload str, 9 metadata_props* StringStringEntry,
        10 device_configurations* NodeDeviceConfiguration""",
    "Attribute": """1 name str, 2 f f32, 3 i i64, 4 s bytes, 5 t Tensor, 6 g Graph, 7 floats* f32,
        8 ints* i64, 9 strings* bytes, 10 tensors* Tensor, 11 graphs* Graph, 13 doc_string str,
        14 tp Type, 15 type_protos* Type, 20 type i32, 21 ref_attr_name str,
        22 sparse_tensor SparseTensor, 23 sparse_tensors* SparseTensor""",
    "Tensor": """1 dims* i64, 2 data_type i32, 3 segment Segment, 4 float_data* f32,
        5 int32_data* i32, 6 string_data* bytes, 7 int64_data* i64, 8 name str, 9 raw_data bytes,
        10 double_data* f64, 11 uint64_data* u64, 12 doc_string str,
        13 external_data* StringStringEntry, 14 data_location i32,
        16 metadata_props* StringStringEntry""",
    "Segment": "1 begin i64, 2 end i64",
    "StringStringEntry": "1 key str, 2 value str",
    "SparseTensor": "1 values Tensor, 2 indices Tensor, 3 dims* i64",
    "Type": """1 tensor_type TensorType, 4 sequence_type Sequence, 5 map_type Map, 6 denotation str,
        7 opaque_type Opaque, 8 sparse_tensor_type SparseTensorType, 9 optional_type Optional""",
    "TensorType": "1 elem_type i32, 2 shape TensorShape",
    "TensorShape": "1 dim* Dimension",
    "Dimension": "1 dim_value i64, 2 dim_param str, 3 denotation str",
    "Sequence": "1 elem_type Type",
    "Map": "1 key_type i32, 2 value_type Type",
    "Optional": "1 elem_type Type",
    "SparseTensorType": "1 elem_type i32, 2 shape TensorShape",
    "Opaque": "1 domain str, 2 name str",
    "ValueInfo": "1 name str, 2 type Type, 3 doc_string str, 4 metadata_props* StringStringEntry",
    "TensorAnnotation": "1 tensor_name str, 2 quant_parameter_tensor_names* StringStringEntry",
    "TrainingInfo": """1 initialization Graph, 2 algorithm Graph,
        3 initialization_binding* StringStringEntry, 4 update_binding* StringStringEntry""",
    "Function": """1 name str, 4 input* str, 5 output* str, 6 attribute* str, 7 node* Node,
        8 doc_string str, 9 opset_import* OperatorSetId, 10 domain str,
        11 attribute_proto* Attribute, 12 value_info* ValueInfo, 13 overload str,
        14 metadata_props* StringStringEntry""",
    "DeviceConfiguration": "1 name str, 2 num_devices i32, 3 device* str",
    "NodeDeviceConfiguration": """1 configuration_id str, 2 sharding_spec* ShardingSpec,
        3 pipeline_stage i32""",
    "ShardingSpec": """1 tensor_name str, 2 device* i64,
        3 index_to_device_group_map* IntIntListEntry, 4 sharded_dim* ShardedDim""",
    "IntIntListEntry": "1 key i64, 2 value* i64",
    "ShardedDim": "1 axis i64, 2 simple_sharding* SimpleShardedDim",
    "SimpleShardedDim": "1 dim_value i64, 2 dim_param str, 3 num_shards i64",
}


def _fields(table: str) -> dict[int, Field]:
    rows = (row.split() for row in table.split(","))
    return {int(n): Field(name.rstrip("*"), kind, name.endswith("*")) for n, name, kind in rows}


MESSAGES: dict[str, dict[int, Field]] = {name: _fields(table) for name, table in _TABLES.items()}
"""Message name to field number to field."""
