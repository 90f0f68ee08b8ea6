/* Classify rows in C99, without heap: ./classify < rows.txt, one row of numbers a line.
   model.c and model.h come from generate.py; on a microcontroller, main() is yours to replace. */
#include <math.h>
#include <stdio.h>

#include "model.h"

static int passes_selftest(void) {
    for (int v = 0; v < VECTORS; v++) {
        float log_probs[1][CLASSES], probs[1][CLASSES];
        model((const void *)test_inputs[v], log_probs, probs);
        const float *got = SPARSE ? probs[0] : log_probs[0]; /* of a class ruled out -inf */
        for (int k = 0; k < CLASSES; k++)
            if (!(fabsf(got[k] - test_answers[v][k]) <= test_tolerance[v]))
                return 0; /* a NaN, too */
    }
    return 1;
}

/* The index of a row's class, and its probability. */
static int classify(const float x[FEATURES], float *probability) {
    float log_probs[1][CLASSES], probs[1][CLASSES];
    int label = 0;
    model((const void *)x, log_probs, probs);
    for (int k = 1; k < CLASSES; k++)
        if (probs[0][k] > probs[0][label]) label = k;
    if (threshold > 0) label = probs[0][1] >= threshold;
    *probability = probs[0][label];
    return label;
}

/* Says once that a row lies far outside what the model was trained on. */
static void check_range(const float x[FEATURES]) {
    static int said = 0;
    for (int i = 0; i < FEATURES && !said; i++)
        if (x[i] < least || x[i] > most)
            said = fprintf(stderr, "warning: got %g, far outside training; check the scale\n",
                           (double)x[i]);
}

/* Reads a line: how many numbers it has, or -1 at the end of the input. */
static int read_row(float x[FEATURES]) {
    for (int n = 0;; n++) {
        float number;
        int c = getchar();
        while (c == ' ' || c == '\t' || c == ',' || c == '\r') c = getchar();
        if (c == EOF && n == 0) return -1;
        if (c == EOF || c == '\n') return n;
        ungetc(c, stdin);
        if (scanf("%f", &number) != 1) return 0;
        if (n < FEATURES) x[n] = number;
    }
}

int main(void) {
    static float x[FEATURES];
    float probability;
    if (!passes_selftest()) return fputs("classify: the model fails its self-test\n", stderr), 1;
    for (int n; (n = read_row(x)) >= 0;) {
        if (n != FEATURES)
            return fprintf(stderr, "classify: expected %d numbers, got %d\n", FEATURES, n), 2;
        int label = classify(x, &probability);
        if (probability != probability)
            return fputs("classify: expected numbers, got NaN or overflow\n", stderr), 2;
        check_range(x);
        printf("%s\t%.6f\n", class_names[label], (double)probability);
    }
    return 0;
}
