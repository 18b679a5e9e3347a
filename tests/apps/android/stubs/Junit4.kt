package org.junit

annotation class Test

@Target(AnnotationTarget.FIELD, AnnotationTarget.PROPERTY_GETTER)
annotation class Rule

object Assert {
    fun assertTrue(message: String, condition: Boolean): Unit = TODO()
}
