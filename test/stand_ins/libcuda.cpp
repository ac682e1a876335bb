// Stands in for the NVIDIA driver's library, libcuda.so.1, as far as the program and a CUDA runtime ask it at the start: a driver
// for the version of CUDA that STAND_IN_CUDA says (12020 is 12.2), with one GPU.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {

int cuInit(unsigned) {
  return 0;
}
int cuDriverGetVersion(int* version) {
  const char* said = std::getenv("STAND_IN_CUDA");
  *version = said == nullptr ? 12020 : std::atoi(said);
  return 0;
}
int cuDeviceGetCount(int* count) {
  *count = 1;
  return 0;
}
int cuDeviceGetName(char* name, int size, int device) {
  std::snprintf(name, static_cast<size_t>(size), "stand-in GPU %d", device);
  return 0;
}
int cuDeviceGetUuid_v2(void* id, int device) {
  std::memset(id, 0xa0 + device, 16);
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 8 : 0;  // compute capability 8.0
  return 0;
}
int cuDeviceTotalMem_v2(size_t* bytes, int) {
  *bytes = size_t{16} << 30;
  return 0;
}

}  // extern "C"
