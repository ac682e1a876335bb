# Libraries that stand in for a GPU's driver and for LibTorch's CUDA library (test/stand_ins), which test/e2e/old_driver.py puts
# before the real ones.
add_library(longlora_stand_in_driver SHARED EXCLUDE_FROM_ALL test/stand_ins/libcuda.cpp)
set_target_properties(longlora_stand_in_driver PROPERTIES OUTPUT_NAME cuda VERSION 1 SOVERSION 1)
add_library(longlora_stand_in_torch SHARED EXCLUDE_FROM_ALL test/stand_ins/libtorch_cuda.cpp)
target_link_libraries(longlora_stand_in_torch PRIVATE torch::cpu)
target_compile_options(longlora_stand_in_torch PRIVATE -O1)
set_target_properties(longlora_stand_in_torch PROPERTIES OUTPUT_NAME torch_cuda)
set_target_properties(longlora_stand_in_driver longlora_stand_in_torch PROPERTIES
                      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/stand_ins)
add_custom_target(longlora_stand_ins DEPENDS longlora_stand_in_driver longlora_stand_in_torch)
