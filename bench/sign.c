/* A PKCS#11 caller: times C_Initialize and P-256 C_SignInit + C_Sign.
 *
 *     sign MODULE PIN LABEL COUNT   ->   "INITIALIZE_US SIGN_US", medians
 *
 * The function list of PKCS#11 2.40 is a version and then pointers in a fixed order; only those used are named.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned long ulong;
typedef struct { ulong type; void *value; ulong size; } attribute;
typedef struct { ulong mechanism; void *parameter; ulong size; } mechanism;
typedef struct { unsigned char version[2]; ulong (*call[68])(); } functions;

enum { INITIALIZE = 0, FINALIZE = 1, GET_SLOT_LIST = 4, OPEN_SESSION = 12, LOGIN = 18,
       FIND_INIT = 26, FIND = 27, FIND_FINAL = 28, SIGN_INIT = 42, SIGN = 43 };
enum { CKA_CLASS = 0, CKA_LABEL = 3, CKO_PRIVATE_KEY = 3, CKM_ECDSA = 0x1041, CKU_USER = 1, SERIAL_RW = 6 };

static functions *f;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *times, int count)
{
    qsort(times, count, sizeof *times, by_size);
    return times[count / 2];
}

static void must(ulong rv, const char *what)
{
    if (rv != 0) {
        fprintf(stderr, "%s: CKR %#lx\n", what, rv);
        exit(1);
    }
}

static ulong session_with_key(const char *pin, const char *label, ulong *key)
{
    ulong slots[16], count = 16, session, found = 0, class = CKO_PRIVATE_KEY;
    attribute wanted[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, (void *)label, strlen(label)}};
    must(f->call[GET_SLOT_LIST]((unsigned char)1, slots, &count), "C_GetSlotList");
    must(f->call[OPEN_SESSION](slots[0], (ulong)SERIAL_RW, NULL, NULL, &session), "C_OpenSession");
    must(f->call[LOGIN](session, (ulong)CKU_USER, pin, (ulong)strlen(pin)), "C_Login");
    must(f->call[FIND_INIT](session, wanted, (ulong)2), "C_FindObjectsInit");
    must(f->call[FIND](session, key, (ulong)1, &found), "C_FindObjects");
    must(f->call[FIND_FINAL](session), "C_FindObjectsFinal");
    must(found == 1 ? 0 : 0x82, "the key");
    return session;
}

int main(int argc, char **argv)
{
    enum { INITIALIZATIONS = 21 };
    int count = argc == 5 ? atoi(argv[4]) : 0;
    double start, setup[INITIALIZATIONS], *times = calloc(count + 1, sizeof *times);
    unsigned char digest[32] = "0123456789abcdef0123456789abcde", signature[128];
    void *module = count > 0 ? dlopen(argv[1], RTLD_NOW) : NULL;
    ulong (*get_function_list)(functions **) = module ? dlsym(module, "C_GetFunctionList") : NULL;
    mechanism ecdsa = {CKM_ECDSA, NULL, 0};
    ulong session, key, size;
    if (!get_function_list || !times) {
        fprintf(stderr, "usage: sign MODULE PIN LABEL COUNT\n");
        return 2;
    }
    must(get_function_list(&f), "C_GetFunctionList");
    for (int i = 0; i < INITIALIZATIONS; i++) {
        start = now();
        must(f->call[INITIALIZE](NULL), "C_Initialize");
        setup[i] = now() - start;
        if (i < INITIALIZATIONS - 1)
            must(f->call[FINALIZE](NULL), "C_Finalize");
    }
    session = session_with_key(argv[2], argv[3], &key);
    for (int i = 0; i < count; i++) {
        size = sizeof signature;
        start = now();
        must(f->call[SIGN_INIT](session, &ecdsa, key), "C_SignInit");
        must(f->call[SIGN](session, digest, (ulong)sizeof digest, signature, &size), "C_Sign");
        times[i] = now() - start;
    }
    printf("%.1f %.1f\n", median(setup, INITIALIZATIONS), median(times, count));
    f->call[FINALIZE](NULL);
    return 0;
}
