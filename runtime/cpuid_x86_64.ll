; What the CPU has, for runtime/levels.ll: the words that graphc/codegen/cpuid.py names.
;
; cpuid is asked for a leaf only if the highest leaf says that it exists, else the word is 0. XCR0 can be read where
; bit 27 (OSXSAVE) of leaf 1's ecx is set. noinline: the instruction overwrites rbx, which a caller may need.
define internal void @graphc_read_cpu(ptr %words) noinline nounwind {
  %highest = call { i32, i32, i32, i32 } @graphc_cpuid(i32 0, i32 0)
  %leaves = extractvalue { i32, i32, i32, i32 } %highest, 0
  %one = call { i32, i32, i32, i32 } @graphc_cpuid(i32 1, i32 0)
  %one_c = extractvalue { i32, i32, i32, i32 } %one, 2
  store i32 %one_c, ptr %words
  %one_d = extractvalue { i32, i32, i32, i32 } %one, 3
  %w1 = getelementptr i32, ptr %words, i64 1
  store i32 %one_d, ptr %w1
  %has_seven = icmp uge i32 %leaves, 7
  br i1 %has_seven, label %seven, label %extended
seven:
  %s = call { i32, i32, i32, i32 } @graphc_cpuid(i32 7, i32 0)
  %s_b = extractvalue { i32, i32, i32, i32 } %s, 1
  %w2 = getelementptr i32, ptr %words, i64 2
  store i32 %s_b, ptr %w2
  %s_c = extractvalue { i32, i32, i32, i32 } %s, 2
  %w3 = getelementptr i32, ptr %words, i64 3
  store i32 %s_c, ptr %w3
  %s_d = extractvalue { i32, i32, i32, i32 } %s, 3
  %w4 = getelementptr i32, ptr %words, i64 4
  store i32 %s_d, ptr %w4
  %subleaves = extractvalue { i32, i32, i32, i32 } %s, 0
  %has_more = icmp ne i32 %subleaves, 0
  br i1 %has_more, label %seven_one, label %extended
seven_one:
  %t = call { i32, i32, i32, i32 } @graphc_cpuid(i32 7, i32 1)
  %t_a = extractvalue { i32, i32, i32, i32 } %t, 0
  %w5 = getelementptr i32, ptr %words, i64 5
  store i32 %t_a, ptr %w5
  br label %extended
extended:
  %e = call { i32, i32, i32, i32 } @graphc_cpuid(i32 -2147483648, i32 0)     ; 0x80000000
  %e_leaves = extractvalue { i32, i32, i32, i32 } %e, 0
  %has_extended = icmp uge i32 %e_leaves, -2147483647
  br i1 %has_extended, label %extended_one, label %state
extended_one:
  %x = call { i32, i32, i32, i32 } @graphc_cpuid(i32 -2147483647, i32 0)
  %x_c = extractvalue { i32, i32, i32, i32 } %x, 2
  %w6 = getelementptr i32, ptr %words, i64 6
  store i32 %x_c, ptr %w6
  br label %state
state:
  %osxsave = and i32 %one_c, 134217728
  %readable = icmp ne i32 %osxsave, 0
  br i1 %readable, label %registers, label %done
registers:
  %xcr0 = call { i32, i32 } asm sideeffect "xgetbv", "={ax},={dx},{cx}"(i32 0)
  %low = extractvalue { i32, i32 } %xcr0, 0
  %w7 = getelementptr i32, ptr %words, i64 7
  store i32 %low, ptr %w7
  br label %done
done:
  ret void
}

; eax, ebx, ecx, edx
define internal { i32, i32, i32, i32 } @graphc_cpuid(i32 %leaf, i32 %subleaf) alwaysinline nounwind {
  %r = call { i32, i32, i32, i32 } asm sideeffect "cpuid", "={ax},={bx},={cx},={dx},{ax},{cx}"(i32 %leaf, i32 %subleaf)
  ret { i32, i32, i32, i32 } %r
}
