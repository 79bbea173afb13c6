/* The part of onnxruntime's C API that the kernels use, declared from its documented layout: a table of function
 * pointers that only grows at its end, and a record of callbacks. No package ships the header itself. */
#ifndef ONNXPRUNE_ORT_API_H
#define ONNXPRUNE_ORT_API_H

#include <stddef.h>
#include <stdint.h>

enum { API_LEVEL = 18, FAIL = 1, INVALID_ARGUMENT = 2, INVALID_GRAPH = 10, FLOAT32 = 1 };

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtShape OrtShape; /* OrtTensorTypeAndShapeInfo */
typedef struct OrtAllocator OrtAllocator;
typedef void (*any_function)(void);

typedef struct {
    any_function slots[279];
} OrtApi;

typedef struct {
    const OrtApi *(*get_api)(uint32_t level);
    const char *(*version)(void);
} OrtApiBase;

/* Slots by their place in the table. */
#define CALL(api, slot, type) ((type)(api)->slots[slot])
#define ORT_CREATE_STATUS(a) CALL(a, 0, OrtStatus *(*)(int, const char *))
#define ORT_CREATE_DOMAIN(a) CALL(a, 26, OrtStatus *(*)(const char *, OrtCustomOpDomain **))
#define ORT_DOMAIN_ADD(a) CALL(a, 27, OrtStatus *(*)(OrtCustomOpDomain *, const OrtCustomOp *))
#define ORT_ADD_DOMAIN(a) CALL(a, 28, OrtStatus *(*)(OrtSessionOptions *, OrtCustomOpDomain *))
#define ORT_TENSOR_DATA(a) CALL(a, 51, OrtStatus *(*)(OrtValue *, void **))
#define ORT_ELEMENT_TYPE(a) CALL(a, 60, OrtStatus *(*)(const OrtShape *, int *))
#define ORT_RANK(a) CALL(a, 61, OrtStatus *(*)(const OrtShape *, size_t *))
#define ORT_SIZES(a) CALL(a, 62, OrtStatus *(*)(const OrtShape *, int64_t *, size_t))
#define ORT_SHAPE_OF(a) CALL(a, 65, OrtStatus *(*)(const OrtValue *, OrtShape **))
#define ORT_ALLOC(a) CALL(a, 75, OrtStatus *(*)(OrtAllocator *, size_t, void **))
#define ORT_FREE(a) CALL(a, 76, OrtStatus *(*)(OrtAllocator *, void *))
#define ORT_ATTRIBUTE_INT(a) CALL(a, 86, OrtStatus *(*)(const OrtKernelInfo *, const char *, int64_t *))
#define ORT_INPUT(a) CALL(a, 90, OrtStatus *(*)(const OrtKernelContext *, size_t, const OrtValue **))
#define ORT_OUTPUT(a) \
    CALL(a, 91, OrtStatus *(*)(OrtKernelContext *, size_t, const int64_t *, size_t, OrtValue **))
#define ORT_RELEASE_STATUS(a) CALL(a, 93, void (*)(OrtStatus *))
#define ORT_RELEASE_SHAPE(a) CALL(a, 99, void (*)(OrtShape *))
#define ORT_RELEASE_ALLOCATOR(a) CALL(a, 132, void (*)(OrtAllocator *))
#define ORT_CONSTANT_INPUT(a) \
    CALL(a, 249, OrtStatus *(*)(const OrtKernelInfo *, size_t, int *, const OrtValue **))
#define ORT_PARALLEL_FOR(a) \
    CALL(a, 274, OrtStatus *(*)(const OrtKernelContext *, void (*)(void *, size_t), size_t, size_t, void *))
#define ORT_INFO_ALLOCATOR(a) CALL(a, 278, OrtStatus *(*)(const OrtKernelInfo *, int, OrtAllocator **))

/* Callbacks of an operator; those that are not set are NULL. */
typedef struct OrtCustomOp OrtCustomOp;
struct OrtCustomOp {
    uint32_t version;
    any_function create_kernel; /* before level 16 */
    const char *(*name)(const OrtCustomOp *);
    const char *(*provider)(const OrtCustomOp *);
    int (*input_type)(const OrtCustomOp *, size_t);
    size_t (*inputs)(const OrtCustomOp *);
    int (*output_type)(const OrtCustomOp *, size_t);
    size_t (*outputs)(const OrtCustomOp *);
    any_function compute;
    void (*destroy)(void *);
    int (*input_characteristic)(const OrtCustomOp *, size_t);
    int (*output_characteristic)(const OrtCustomOp *, size_t);
    int (*input_memory)(const OrtCustomOp *, size_t);
    int (*variadic[4])(const OrtCustomOp *);
    OrtStatus *(*create_kernel_v2)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *, void **);
    OrtStatus *(*compute_v2)(void *, OrtKernelContext *);
    any_function infer_shapes;
    int (*first_version)(const OrtCustomOp *);
    int (*last_version)(const OrtCustomOp *);
    any_function others[4];
};
_Static_assert(sizeof(void *) != 8 || sizeof(OrtCustomOp) == 208, "as onnxruntime lays it out");

#endif
