/* Two networks in one program, one header included twice. It is compiled as C and as C++. */
#include "first.h"
#include "first.h"
#include "second.h"

#include <stdio.h>

int main(void)
{
    static float image[3 * 16 * 16], one[5 * 16 * 16], two[5 * 16 * 16];
    first *a;
    second *b;
    int code = first_create(&a, 1, NULL) + second_create(&b, 2, NULL);

    if (code == FIRST_OK)
        code = first_run(a, image, 1, 16, 16, one) + second_run(b, image, 1, 16, 16, two);
    printf("%d %d %.9g %.9g\n", FIRST_ABI_VERSION + SECOND_ABI_VERSION, code, (double)one[0], (double)two[0]);
    first_destroy(a);
    second_destroy(b);
    return code != SECOND_OK;
}
